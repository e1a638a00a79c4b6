"""What a search leaves for its user: the best settings as a file, every trial as a table, importances, plots.

STORE/studies/<study>/best.yaml           for `harness run --set-file`, with the verdict on it
                      trials.csv          every trial: state, values, further scorings, seconds, settings
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
from harness.tuning.selection import Selection
from harness.tuning.space import Space
from results.statistics import Spread, spread

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SELECTION = "selection"
"""Study attribute: how the finalists fared on further seeds."""
_LEAST_FOR_IMPORTANCES = 20
"""Finished trials below which a setting's share says nothing."""
_LEAST_PER_SETTING = 2
"""The same for each setting that is searched."""
_RESAMPLES = 20


def finished(study: Study) -> list[FrozenTrial]:
    """Trials with values that count."""
    from optuna.trial import TrialState

    return [t for t in studies.counted(study) if t.state == TrialState.COMPLETE]


def best_first(study: Study) -> list[FrozenTrial]:
    """The finished trials, or with several objectives the Pareto front, best first objective first."""
    import optuna

    trials = finished(study)
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    front = [t for t in study.best_trials if t in trials] if len(study.directions) > 1 else trials
    # Of equal values the earlier trial counts, so that the settings before the search win a tie.
    return sorted(front, key=lambda t: (sign * t.values[0], t.number))


def best_of(study: Study) -> FrozenTrial | None:
    """The trial that further seeds chose, or that scored best where none did; None if none finished."""
    trials = best_first(study)
    selection = selection_of(study)
    chosen = next((t for t in trials if selection and t.number == selection.chosen), None)
    return chosen or next(iter(trials), None)


def selection_of(study: Study) -> Selection | None:
    """How the finalists fared on further seeds; None where none were scored again."""
    kept = study.user_attrs.get(SELECTION)
    return Selection.from_json(kept) if kept else None


def default_of(study: Study) -> FrozenTrial | None:
    """The finished trial with the settings before the search."""
    return next((t for t in finished(study) if t.user_attrs.get(studies.DEFAULT)), None)


def facts_of(study: Study, objectives: Sequence[str], split: str) -> dict[str, Any]:
    """How the best settings were found: for the record of every run that uses them.

    `trials` is the budget that was used, of which `scored_again` were scorings of the finalists.
    """
    selection = selection_of(study)
    facts: dict[str, Any] = {
        "study": study.study_name,
        "trials": len(studies.counted(study)) + (selection.scorings if selection else 0),
        "seconds": round(studies.seconds_used(study), 1),
        "objective": ", ".join(objectives),
        "split": split,
    }
    if selection:
        facts |= {
            "scored_again": selection.scorings,
            "while_searching": round(selection.searched, 4),
            "on_further_seeds": round(selection.mean, 4),
        }
    return facts


def write_best(path: Path, space: Space, values: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """The file that `harness run --set-file` takes: settings, and how they were found."""
    import yaml

    content = {"overrides": {space.method: space.settings(values)}, TUNED: {space.method: dict(facts)}}
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def write_trials(path: Path, study: Study, space: Space, objectives: Sequence[str]) -> None:
    """Every trial as a row, interrupted and late ones included."""
    names = [d.name for d in space.dimensions]
    header = ["number", "state", *objectives, "again", "took", "default", "reason", *names]
    trials = study.get_trials(deepcopy=False)
    selection = selection_of(study)
    again = selection.again if selection else {}
    cells = (_trial_cells(trial, objectives, again.get(trial.number, ()), names) for trial in trials)
    _write_csv(path, [header, *cells])


def _trial_cells(
    trial: FrozenTrial, objectives: Sequence[str], again: Sequence[float], names: Sequence[str]
) -> list[Any]:
    attributes = trial.user_attrs
    return [
        trial.number,
        "late" if attributes.get(studies.LATE) else trial.state.name.lower(),
        *(trial.values or [""] * len(objectives)),
        " ".join(f"{value:.4g}" for value in again),
        attributes.get("seconds", ""),
        attributes.get(studies.DEFAULT, False),
        attributes.get("reason", ""),
        *(trial.params.get(name, "") for name in names),
    ]


def least_for_importances(study: Study) -> int:
    """Finished trials below which no setting's share is told."""
    settings = max((len(trial.params) for trial in finished(study)), default=0)
    return max(_LEAST_FOR_IMPORTANCES, _LEAST_PER_SETTING * settings)


def importances(study: Study) -> dict[str, Spread]:
    """Setting -> share in the spread of the first objective (Optuna's PED-ANOVA), largest first.

    The deviation is that of the share over bootstrap resamples of the trials: a share that is not several
    times as large may be luck. Empty with too few finished trials, or where all scored the same.
    """
    import random

    trials = finished(study)
    if len(trials) < least_for_importances(study):
        return {}
    shares = _shares(study, trials)
    generator = random.Random(0)
    resampled = [_shares(study, generator.choices(trials, k=len(trials))) for _ in range(_RESAMPLES)]
    found = [again for again in resampled if again]
    return {
        name: Spread(share, spread([again.get(name, 0.0) for again in found]).std if found else None)
        for name, share in shares.items()
    }


def _shares(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """PED-ANOVA's shares among these trials, largest first; empty where nothing varied."""
    import optuna

    if len({trial.values[0] for trial in trials}) < 2:
        return {}
    several = len(study.directions) > 1
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            among = optuna.create_study(directions=study.directions)
            among.add_trials(list(trials))
            target = (lambda trial: trial.values[0]) if several else None
            return dict(optuna.importance.get_param_importances(among, target=target))
    except (RuntimeError, ValueError):  # settings that never varied have no importance
        return {}
    finally:
        optuna.logging.set_verbosity(verbosity)


def write_importances(path: Path, shares: Mapping[str, Spread]) -> None:
    """Three columns: setting, share, and its deviation over resamples of the trials."""
    rows = (
        [name, f"{share:.4f}", "" if std is None else f"{std:.4f}"] for name, (share, std) in shares.items()
    )
    _write_csv(path, [["setting", "share", "deviation"], *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def write_plots(
    folder: Path, study: Study, objectives: Sequence[str], shares: Mapping[str, Spread]
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
