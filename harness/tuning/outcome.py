"""What a search leaves for its user: the best settings as a file, every trial as a table, importances, plots.

STORE/studies/<study>/best.yaml           for `harness run --set-file`
                      trials.csv          every trial: state, values, seconds, settings
                      importances.csv     share of each setting in the spread of the first objective
                      history, slice, parallel_coordinate, importances, pareto_front   .html and .png

Every file is whole or absent.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.files import write_bytes, write_text
from harness.suites.suite import TUNED
from harness.tuning import studies
from harness.tuning.space import Space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

_LEAST_FOR_IMPORTANCES = 4
"""Finished trials below which a setting's share says nothing."""


def finished(study: Study) -> list[FrozenTrial]:
    """Trials with values that count."""
    from optuna.trial import TrialState

    return [t for t in studies.counted(study) if t.state == TrialState.COMPLETE]


def best_of(study: Study) -> list[FrozenTrial]:
    """The best trial; with several objectives the Pareto front, best first objective first. May be empty."""
    import optuna

    trials = finished(study)
    if not trials:
        return []
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    front = trials if len(study.directions) == 1 else [t for t in study.best_trials if t in trials]
    # Of equal values the earlier trial counts, so that the settings before the search win a tie.
    ordered = sorted(front, key=lambda t: (sign * t.values[0], t.number))
    return ordered[:1] if len(study.directions) == 1 else ordered


def default_of(study: Study) -> FrozenTrial | None:
    """The finished trial with the settings before the search."""
    return next((t for t in finished(study) if t.user_attrs.get(studies.DEFAULT)), None)


def facts_of(study: Study, objectives: Sequence[str], split: str) -> dict[str, Any]:
    """How the best settings were found: for the record of every run that uses them."""
    return {
        "study": study.study_name,
        "trials": len(studies.counted(study)),
        "seconds": round(studies.seconds_used(study), 1),
        "objective": ", ".join(objectives),
        "split": split,
    }


def write_best(path: Path, space: Space, values: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """The file that `harness run --set-file` takes: settings, and how they were found."""
    import yaml

    content = {"overrides": {space.method: space.settings(values)}, TUNED: {space.method: dict(facts)}}
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def write_trials(path: Path, study: Study, space: Space, objectives: Sequence[str]) -> None:
    """Every trial as a row, interrupted and late ones included."""
    names = [d.name for d in space.dimensions]
    header = ["number", "state", *objectives, "seconds", "default", "reason", *names]
    trials = study.get_trials(deepcopy=False)
    _write_csv(path, [header, *(_trial_cells(trial, objectives, names) for trial in trials)])


def _trial_cells(trial: FrozenTrial, objectives: Sequence[str], names: Sequence[str]) -> list[Any]:
    attributes = trial.user_attrs
    return [
        trial.number,
        "late" if attributes.get(studies.LATE) else trial.state.name.lower(),
        *(trial.values or [""] * len(objectives)),
        attributes.get("seconds", ""),
        attributes.get(studies.DEFAULT, False),
        attributes.get("reason", ""),
        *(trial.params.get(name, "") for name in names),
    ]


def importances(study: Study) -> dict[str, float]:
    """Setting -> share in the spread of the first objective (Optuna's PED-ANOVA), largest first.

    Empty with too few finished trials, or where all scored the same.
    """
    import optuna

    trials = finished(study)
    if len(trials) < _LEAST_FOR_IMPORTANCES or len({t.values[0] for t in trials}) < 2:
        return {}
    target = None if len(study.directions) == 1 else (lambda trial: trial.values[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(study, target=target)
    except (RuntimeError, ValueError):  # settings that never varied have no importance
        return {}


def write_importances(path: Path, shares: Mapping[str, float]) -> None:
    """Two columns: setting and share."""
    _write_csv(path, [["setting", "share"], *([name, f"{share:.4f}"] for name, share in shares.items())])


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def write_plots(
    folder: Path, study: Study, objectives: Sequence[str], shares: Mapping[str, float]
) -> list[str]:
    """Optuna's own plots, interactive (HTML) and as pictures (PNG); the names of those that were made.

    The HTML files share one copy of the script they need, which lies beside them.
    """
    from optuna.visualization import matplotlib as pictures
    from optuna.visualization import (
        plot_optimization_history,
        plot_parallel_coordinate,
        plot_param_importances,
        plot_pareto_front,
        plot_slice,
    )
    from plotly.offline import get_plotlyjs

    first: dict[str, Any] = {"target_name": objectives[0]}
    if len(objectives) > 1:
        first["target"] = lambda trial: trial.values[0]
    chosen = {"params": list(shares)[:6]} if len(shares) > 1 else {}
    plots: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
        "history": (plot_optimization_history, pictures.plot_optimization_history, first),
        "slice": (plot_slice, pictures.plot_slice, first | chosen),
        "parallel_coordinate": (plot_parallel_coordinate, pictures.plot_parallel_coordinate, first | chosen),
    }
    if shares:
        plots["importances"] = (plot_param_importances, pictures.plot_param_importances, first)
    if len(objectives) > 1:
        names = {"target_names": list(objectives)}
        plots["pareto_front"] = (plot_pareto_front, pictures.plot_pareto_front, names)
    write_text(folder / "plotly.min.js", get_plotlyjs())
    for name, (interactive, picture, settings) in plots.items():
        _write_html(folder / f"{name}.html", interactive, study, settings)
        _write_png(folder / f"{name}.png", picture, study, settings)
    return list(plots)


def _write_html(path: Path, plot: Callable[..., Any], study: Study, settings: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks its plots experimental
        write_text(path, plot(study, **settings).to_html(include_plotlyjs="directory"))


def _write_png(path: Path, plot: Callable[..., Any], study: Study, settings: Mapping[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = np.ravel(np.asarray(plot(study, **settings), dtype=object))
        figure = axes[0].figure
        if len(axes) > 1:
            figure.set_size_inches(4 * len(axes), 4)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=120, bbox_inches="tight")
        pyplot.close(figure)
    write_bytes(path, picture.getvalue())
