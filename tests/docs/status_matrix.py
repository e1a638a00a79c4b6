"""The README's table of which method runs with which engine on what, made from the registries.

python -m tests.docs.status_matrix    # prints it
"""

from __future__ import annotations

from backbones import SPECS
from methods.base import Engine, Method
from methods.registry import engine_names, get_engine, get_method, method_names
from results.published import published_numbers

CLASSIFIERS = frozenset({"vit", "swin"})
DETECTORS = frozenset({"yolos", "mask_rcnn"})


def matrix() -> list[str]:
    """The table's lines in Markdown; the full-precision row has no engine and is left out."""
    engines = engine_names()
    lines = [f"| method | {' | '.join(f'`{name}`' for name in engines)} |", "|---" * (len(engines) + 1) + "|"]
    for name in method_names():
        method = get_method(name)
        if method.synthesizer is not None:
            cells = [_cell(method, engine, get_engine(engine)) for engine in engines]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _cell(method: Method, engine_name: str, engine: type[Engine]) -> str:
    """What the pair runs on, whether it is the paper's own, and how many published numbers compare."""
    assert method.synthesizer is not None
    families = method.synthesizer.families & engine.families
    assert families & (CLASSIFIERS | DETECTORS) == families
    kinds = [word for word, kind in (("C", CLASSIFIERS), ("D", DETECTORS)) if kind <= families]
    assert len(families) == sum(len({"C": CLASSIFIERS, "D": DETECTORS}[word]) for word in kinds)
    if not kinds:
        return "refused"
    cell = " ".join(kinds)
    numbers = _published(method, engine_name)
    return (f"**{cell}**" if method.engine == engine_name else cell) + (f" {numbers}" if numbers else "")


def _published(method: Method, engine: str) -> int:
    """Published numbers that a leaderboard shows beside rows of this pair on a backbone of ours."""
    own = method.published_name if method.engine == engine else None
    name = method.published_elsewhere.get(engine, own)
    ours = {spec.published_name for spec in SPECS.values()} - {None}
    rows = {
        (number.backbone, number.bits, number.dataset)
        for number in published_numbers()
        if number.method == name and number.backbone in ours and number.metric in ("top1", "AP_box", "mAP")
    }
    return len(rows)


if __name__ == "__main__":
    print("\n".join(matrix()))
