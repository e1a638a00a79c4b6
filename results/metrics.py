"""What is known of a metric, in one table: how it is shown, spoken of, checked and found in papers.

    register_metric(Metric("pq", label="PQ", spoken="panoptic quality", papers=("PQ_all",), tolerance=0.3))

A task ranks by the name of its metric; every other part of the project asks this table about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SAME_ANSWER = "same top-1 as full precision, in percent"


@dataclass(frozen=True)
class Metric:
    """A number that tasks measure, higher being better where it ranks."""

    name: str
    """Key in the metrics of a record."""
    label: str
    """Header of its column."""
    spoken: str
    """Its name within a sentence."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Further metrics that a table ranked by this one shows -> their headers."""
    kept: tuple[str, ...] = ()
    """Metrics measured together with it that the leaderboard's data keep beside `mean`, in this order."""
    papers: tuple[str, ...] = ()
    """Names in papers' tables; its own name where none is given."""
    tolerance: float | None = None
    """Percentage points by which full precision may differ from its reference on the whole validation set;
    None where there is no reference."""
    with_itself: float | None = None
    """What full precision has when it is compared with itself; None for metrics that compare with labels."""
    agreement: str = _SAME_ANSWER
    """What `agreement` says about tasks that rank by this metric."""
    per_image: str = ""
    """What a paired test compares of each image, where that is not the metric itself."""

    @property
    def papers_names(self) -> tuple[str, ...]:
        """Names under which papers report it."""
        return self.papers or (self.name,)


_AVERAGES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_SHIPPED = (
    Metric("top1", label="Top-1 %", spoken="top-1", tolerance=0.15),
    Metric("agreement", label="Agreement %", spoken="agreement", kept=("agreement",), with_itself=100.0),
    Metric("kl", label="KL", spoken="KL divergence", kept=("kl",), with_itself=0.0),
    Metric(
        "ap",
        label="AP",
        spoken="box AP",
        beside={"ap50": "AP50", "ap75": "AP75"},
        kept=(*_AVERAGES, *(f"mask_{name}" for name in _AVERAGES)),
        papers=("AP_box", "mAP"),
        # Box AP is printed to one decimal and depends on how an image is resized and its boxes are rounded,
        # which differs between the codes of the references.
        tolerance=0.5,
        agreement="F1 of the detections scored 0.5 or more against full precision's, in percent",
        per_image="AP of each image alone",
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _SHIPPED}
"""Name -> what is known of the metric."""


def register_metric(metric: Metric) -> None:
    """Add a metric to the table; raises ValueError when the name stands for another one."""
    if METRICS.get(metric.name, metric) != metric:
        raise ValueError(f"there is a metric '{metric.name}' already: give the new one another name")
    METRICS[metric.name] = metric


def metric_of(name: str) -> Metric:
    """The entry of that name; of a metric nobody registered one that says nothing beyond the name."""
    return METRICS.get(name) or Metric(name, label=name, spoken=name)


def metrics_of(names: Iterable[str]) -> list[Metric]:
    """The entries of these names, each once: those of the table in its order, then the others."""
    wanted = dict.fromkeys(names)
    known = [metric for name, metric in METRICS.items() if name in wanted]
    return [*known, *(metric_of(name) for name in wanted if name not in METRICS)]


def kept_metrics() -> tuple[str, ...]:
    """Every metric that the leaderboard's data keep beside `mean`, each once."""
    names = [name for metric in METRICS.values() for name in (*metric.kept, *metric.beside)]
    return tuple(dict.fromkeys(names))


def compared_with_itself() -> dict[str, float]:
    """Metric -> what full precision has against itself, free of the rounding of stored outputs."""
    return {m.name: m.with_itself for m in METRICS.values() if m.with_itself is not None}
