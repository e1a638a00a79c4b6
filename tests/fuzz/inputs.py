"""Every kind of input that a user gives, valid and slightly bent, and what happens to one that is accepted.

A kind is a strategy and a check: the check takes an input through the functions that the command line uses,
and says whether it was accepted. An accepted one goes on to the plan and what is shown of it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from rich.console import Console

import harness.suites
from harness.cli.plan import print_plan
from harness.planning.expansion import quantized_trial
from harness.planning.request import Machine, Places, Request, Rows
from harness.planning.session import Session, open_outline, open_workbench
from harness.planning.stage_builder import StageBuilder
from harness.reporting.leaderboard import board_of
from harness.reporting.records import records_of
from harness.store import Store, open_store
from harness.suites.locations import find_locations
from harness.tuning import studies
from harness.tuning.options import TuneOptions
from harness.tuning.preparation import prepare
from harness.tuning.space import Space, declared_space
from methods.bits import Bits
from methods.registry import engine_names, get_engine, get_method, method_names
from methods.scope import SCOPES
from methods.settings import BUDGETS
from results.record import Record
from results.renderers import FORMATS, render
from tests.fuzz.bending import bent, bent_files, bent_words, odd_texts
from tests.fuzz.refusals import is_accepted
from tests.results import fakes

SUITE_FOLDER = Path(harness.suites.__file__).parent
_SYNTHESIZERS = {name: get_method(name).synthesizer for name in method_names()}
_CONFIGS = {name: made.Config for name, made in _SYNTHESIZERS.items() if made is not None} | {
    name: get_engine(name).Config for name in engine_names()
}
_FIELDS = {name: {f.name: f for f in dataclasses.fields(config)} for name, config in _CONFIGS.items()}
"""Method or engine -> its declared settings."""


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    strategy: st.SearchStrategy[Any]
    check: Callable[[Any, Path], bool]
    """Takes an input and an empty folder; whether the input was accepted."""
    share: int
    """Inputs of this kind among 10,000."""


class _Dumper(yaml.SafeDumper):
    """Writes numbers of any length: Python prints none of more than 4,300 digits."""


_Dumper.add_representer(
    int,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:int", hex(value) if abs(value) > 10**4000 else str(value)
    ),
)


def dumped(data: Any) -> str:
    """Nested data as YAML."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def files_of(data: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """YAML files of the data: most as they are written, some with their text bent too."""
    texts = data.map(dumped)
    return st.integers(0, 3).flatmap(
        lambda kind: bent_files(texts) if kind == 0 else texts.map(lambda t: t.encode("utf-8", "replace"))
    )


# ----- settings


def _good_values(owner: str, field: str) -> st.SearchStrategy[Any]:
    """Values that the field takes: its default, its ends, its choices."""
    declared = _FIELDS[owner][field]
    values = [declared.default, *(declared.metadata["choices"] or ())]
    values += [end for end in (declared.metadata["low"], declared.metadata["high"]) if end is not None]
    return st.sampled_from(values).map(lambda v: list(v) if isinstance(v, tuple) else v)


@st.composite
def settings_of(draw: st.DrawFn, owner: str, most: int = 3) -> dict[str, Any]:
    """Valid settings of a method or an engine."""
    names = draw(st.lists(st.sampled_from(sorted(_FIELDS[owner])), max_size=most, unique=True))
    return {name: draw(_good_values(owner, name)) for name in names}


@st.composite
def overrides(draw: st.DrawFn, owners: tuple[str, ...]) -> dict[str, Any]:
    """Valid overrides of a few methods and engines, an engine's nested in a method's at times."""
    found = {}
    for owner in draw(st.lists(st.sampled_from(owners), max_size=2, unique=True)):
        found[owner] = draw(settings_of(owner))
        engine = get_method(owner).engine if owner in method_names() else None
        if engine and draw(st.booleans()):
            found[owner][engine] = draw(settings_of(engine, 2))
    return found


# ----- suites

_CLASSIFYING = ("psaq_vit", "mimiq", "maskaq", "gdfq", "smi", "fdd")
_OWNERS = (*_CLASSIFYING, "lsq_qat", "psaq_ptq", "repq_ptq", "gaussian_noise", "real_data")


@st.composite
def suites(draw: st.DrawFn) -> dict[str, Any]:
    """A valid suite on digits, small enough to be planned in a moment."""
    methods = draw(st.lists(st.sampled_from(_CLASSIFYING), max_size=2, unique=True))
    suite: dict[str, Any] = {
        "task": "digits",
        "backbones": draw(st.sampled_from((["digits_vit"], ["digits_swin"]))),
        "bits": draw(st.sampled_from((["w4a4"], ["w3a8", " W4A4 "]))),
        "methods": methods,
    }
    more: dict[str, st.SearchStrategy[Any]] = {
        "description": st.sampled_from(("what it is for", "[bold]", "[/x] é")),
        "seeds": st.sampled_from(([0], [0, 1], [2**40])),
        "budget": st.sampled_from(BUDGETS),
        "track": st.just("published"),
        "engines": st.sampled_from(([], ["lsq_qat"], ["psaq_ptq", "repq_ptq"])),
        "scope": st.just("whole"),
        "oracle": st.booleans(),
        "overrides": st.none() | overrides(_OWNERS),
    }
    for key in draw(st.lists(st.sampled_from(sorted(more)), max_size=4, unique=True)):
        suite[key] = draw(more[key])
    if methods and draw(st.booleans()):
        tuned = st.fixed_dictionaries({}, optional={"tuned": st.just({"trials": 5, "best": [1.5, "x"]})})
        rows = st.tuples(settings_of(methods[0], 2), tuned).map(lambda two: {**two[0], **two[1]})
        suite["variants"] = {methods[0]: draw(st.lists(rows, max_size=2))}
    return suite


def _shipped(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(names).map(lambda name: (SUITE_FOLDER / f"{name}.yaml").read_text("utf-8"))


SMALL = ("digits_w3a3", "digits_w4a4", "digits_w5a5", "digits_detection_w3a3", "maskaq_ablation")
suite_files = st.one_of(
    files_of(bent(suites())),
    files_of(bent(suites())),
    files_of(bent(_shipped(SMALL).map(yaml.safe_load))),
    bent_files(_shipped(SMALL)),
)


def check_suite(content: bytes, folder: Path) -> bool:
    """A suite file, planned and shown."""
    file = _written(folder / "bent.yaml", content)
    return _is_planned(Rows(suite=str(file)), folder, ("bent.yaml", "bent", "real_data"))


def _is_planned(rows: Rows, folder: Path, places: tuple[str, ...], **where: Any) -> bool:
    """Whether a request is accepted; an accepted one is planned, shown and turned into records."""
    sessions: list[Session] = []
    request = Request(rows, Places(store=str(folder / "store"), **where), Machine(device="cpu"))
    if not is_accepted(lambda: sessions.append(open_outline(request)), places):
        return False
    (session,) = sessions
    with open(os.devnull, "w", encoding="utf-8", errors="backslashreplace") as nowhere:
        console = Console(file=nowhere, width=100)
        print_plan(session, console)
        print_plan(session, console, every_stage=True)
    for record in records_of(session.plan, session.store):
        assert Record.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))).trial
    seed = max(session.suite.seeds)
    assert -(2**63) <= seed < 2**63, "torch takes no such seed"
    return True


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


# ----- files beside the suite

configs = st.fixed_dictionaries(
    {},
    optional={
        "data": st.just({"imagenet": "/data/imagenet", "coco": "~/coco"}),
        "weights": st.just({"deit_tiny": "tiny.safetensors", "vit_base": "/weights/base.pth::model_ema"}),
        "store": st.just("results"),
        "weights_dir": st.just("~/weights"),
    },
)
config_files = files_of(bent(configs))


def check_config(content: bytes, folder: Path) -> bool:
    """A config file: locations, then the plan of a suite that takes weights and data from there."""
    file = _written(folder / "bent.yaml", content)
    read = functools.partial(find_locations, config=str(file), environment={})
    if not is_accepted(read, ("bent.yaml", "--data", "--weights")):
        return False
    places = ("bent.yaml", "imagenet", "coco", "deit_tiny", "vit_base", "--store", "store")
    rows = Rows(suite="imagenet_w4a4", backbones=("deit_tiny",), methods=("psaq_vit",), seeds=("0",))
    _is_planned(rows, folder, places, config=str(file))
    return True


@st.composite
def set_files(draw: st.DrawFn) -> dict[str, Any]:
    """What a search writes: settings of a method, and how they were found."""
    found = draw(overrides(_OWNERS))
    tuned = {name: {"trials": 30, "objective": "agreement", "value": 71.5} for name in found}
    return {"overrides": found, **({"tuned": tuned} if draw(st.booleans()) else {})}


def check_set_file(content: bytes, folder: Path) -> bool:
    """A set-file on top of a suite."""
    file = _written(folder / "bent.yaml", content)
    return _is_planned(
        Rows(suite="digits_w4a4", set_files=(str(file),)), folder, ("bent.yaml", "digits_w4a4", "real_data")
    )


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    """A valid space file of a search of MaskAQ or SMI."""
    found: dict[str, Any] = {}
    for owner in draw(st.lists(st.sampled_from(("maskaq", "lsq_qat")), min_size=1, max_size=2, unique=True)):
        names = draw(st.lists(st.sampled_from(sorted(_FIELDS[owner])), max_size=3, unique=True))
        found[owner] = {name: draw(_entries(owner, name)) for name in names}
    return found


def _entries(owner: str, field: str) -> st.SearchStrategy[Any]:
    """An entry of a space file for the field."""
    declared = _FIELDS[owner][field]
    low, high, choices = (declared.metadata[k] for k in ("low", "high", "choices"))
    entries: list[Any] = [False, {"choices": [declared.default]}]
    if choices:
        entries += [True, {"choices": list(choices)}]
    if low is not None and high is not None:
        entries += [True, {"low": low, "high": high}, {"high": high}, {"low": str(low), "high": str(high)}]
        entries += [{"low": max(low, 1e-3 if isinstance(low, float) else 1), "high": high, "log": True}]
    return st.sampled_from(entries).map(copy.deepcopy)


def check_space(content: bytes, folder: Path) -> bool:
    """A space file: its dimensions in Optuna's terms, and the plan of tries at their ends."""
    file = _written(folder / "bent.yaml", content)
    builder = _workbench("maskaq")
    configs = builder.synthesis_config("maskaq", "lsq_qat"), builder.engine_config("maskaq", "lsq_qat")
    found: list[Space] = []

    def read() -> None:
        found.append(declared_space("maskaq", "lsq_qat", *configs, str(file)))

    if not is_accepted(read, ("bent.yaml",)):
        return False
    (space,) = found
    distributions = studies.distributions(space)
    assert set(distributions) == set(space.defaults)
    json.dumps([d.to_json() for d in space.dimensions], allow_nan=False)
    grids = [dimension.grid(2) for dimension in space.dimensions]
    for end in (0, -1):
        values = {d.name: grid[end] for d, grid in zip(space.dimensions, grids, strict=True)}
        for name, value in values.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(value))
        varied = builder.varied("maskaq", space.settings(values))
        reference = varied.reference("digits_vit", "tune")
        quantized_trial(varied, "maskaq", "lsq_qat", "digits_vit", Bits(4, 4), 0, reference, split="tune")
    return True


@functools.cache
def _workbench(method: str) -> StageBuilder:
    request = Request(Rows(suite="digits_w4a4", methods=(method,)), machine=Machine(device="cpu"))
    return open_workbench(request)[0]


# ----- options of a request


@st.composite
def assignments(draw: st.DrawFn) -> tuple[str, ...]:
    """One or two `--set`, most of them valid."""
    found = []
    for _ in range(draw(st.integers(1, 2))):
        owner = draw(st.sampled_from(_OWNERS))
        path, values = [owner], owner
        engine = get_method(owner).engine if owner in method_names() else None
        if engine and draw(st.booleans()):
            path, values = [owner, engine], engine
        field = draw(st.sampled_from(sorted(_FIELDS[values])))
        good = draw(_good_values(values, field))
        text = "+".join(map(str, good)) if isinstance(good, list) else str(good)
        value = draw(st.sampled_from((text, text)) | bent_words((text,)) | odd_texts)
        words = [*path, field]
        if draw(st.integers(0, 5)) == 0:
            place = draw(st.integers(0, len(words) - 1))
            words[place] = draw(bent_words((words[place],)))
        found.append(f"{'.'.join(words)}{draw(st.sampled_from(('=',) * 9 + ('', '==')))}{value}")
    return tuple(found)


def check_assignments(texts: tuple[str, ...], folder: Path) -> bool:
    """`--set` on top of a suite."""
    return _is_planned(Rows(suite="digits_w4a4", assignments=texts), folder, ("--set", "real_data"))


bit_texts = st.lists(
    bent_words(("w4a4", "W3A8", "w2a2", "w8a8", "fp32"))
    | st.builds("w{}a{}".format, *[st.integers(0, 40) | st.sampled_from((10**20, "٤", "+4", "4.0", ""))] * 2),
    max_size=2,
).map(tuple)


def check_bits(texts: tuple[str, ...], folder: Path) -> bool:
    """`--bits`."""
    return _is_planned(Rows(suite="digits_w4a4", methods=("psaq_vit",), bits=texts), folder, ("--bits",))


seed_texts = st.lists(
    st.integers(-3, 99).map(str)
    | st.integers(-(2**80), 2**80).map(str)
    | bent_words(("0", "1", "9223372036854775807", "+5", "1_0", "007"))
    | odd_texts,
    max_size=3,
).map(tuple)


def check_seeds(texts: tuple[str, ...], folder: Path) -> bool:
    """`--seeds`."""
    return _is_planned(Rows(suite="digits_w4a4", methods=("psaq_vit",), seeds=texts), folder, ("--seeds",))


@st.composite
def names(draw: st.DrawFn) -> dict[str, Any]:
    """The options that take names."""
    several = {
        "methods": ("psaq_vit", "mimiq", "maskaq", "fp32", "smi", "psaq_vit_v2", "image_folder"),
        "backbones": ("digits_vit", "digits_vit", "digits_swin", "deit_tiny", "digits_yolos"),
        "engines": tuple(engine_names()),
    }
    one = {"suite": (*SMALL[:3], "digits_w4a4.yaml", ""), "budget": BUDGETS, "scope": SCOPES}
    found: dict[str, Any] = {"suite": draw(st.sampled_from(SMALL[:3]))}
    for field in draw(st.lists(st.sampled_from((*several, *one)), max_size=3, unique=True)):
        if field in several:
            found[field] = tuple(draw(st.lists(bent_words(several[field]), max_size=2)))
        else:
            found[field] = draw(bent_words(one[field]))
    return found


def check_names(chosen: dict[str, Any], folder: Path) -> bool:
    """Suite, methods, backbones, engines, budget and scope."""
    flags = ("--bits", "--methods", "--backbones", "--engines", "--budget", "--scope", "--suite", "suite")
    return _is_planned(Rows(**chosen), folder, (*flags, "image_folder", "digits_w"))


paths = st.sampled_from(("val", "/nowhere", "../up", "~", ".", "tiny.pth::model", "a b")) | odd_texts


@st.composite
def locations(draw: st.DrawFn) -> dict[str, Any]:
    """`--data`, `--weights`, the environment's variables and the store."""
    data = st.builds("{}={}".format, bent_words(("imagenet", "coco", "images")), paths)
    weights = st.builds("{}={}".format, bent_words(("deit_tiny", "vit_base", "yolos_tiny")), paths)
    variables = ("HARNESS_DATA_COCO", "HARNESS_WEIGHTS_DEIT_TINY", "HARNESS_STORE", "HARNESS_WEIGHTS_DIR")
    return {
        "data": draw(st.lists(data | bent_words(("imagenet",)), max_size=2)),
        "weights": draw(st.lists(weights, max_size=2)),
        "store": draw(st.none() | paths),
        "config": draw(st.none() | st.none() | st.none() | paths),
        "environment": draw(st.dictionaries(st.sampled_from(variables), paths, max_size=2)),
    }


def check_locations(given: dict[str, Any], folder: Path) -> bool:
    """Where things lie: read, then a plan that looks there."""
    flags = ("--data", "--weights", "--store", "--config", "config file", "HARNESS_")
    if not is_accepted(lambda: find_locations(**given), flags):
        return False
    rows = Rows(suite="imagenet_w4a4", backbones=("deit_tiny",), methods=("psaq_vit",), seeds=("0",))
    places = Places(tuple(given["data"]), tuple(given["weights"]), given["store"], given["config"])
    opened: list[Session] = []
    if is_accepted(
        lambda: opened.append(open_outline(Request(rows, places))), (*flags, "deit_tiny", "store")
    ):
        opened[0].plan.missing(opened[0].store)
    return True


# ----- a search


@st.composite
def searches(draw: st.DrawFn) -> TuneOptions:
    """Options of `harness tune`, as Typer lets them through."""
    choices: dict[str, st.SearchStrategy[Any]] = {
        "trials": st.integers(1, 10**6),
        "seconds": st.none() | st.floats(1) | st.just(float("nan")),
        "sampler": bent_words(studies.SAMPLERS),
        "pruner": st.none() | bent_words(studies.PRUNERS),
        "objective": bent_words(
            (
                "agreement",
                "accuracy",
                "accuracy,seconds",
                "agreement,peak_memory_mb",
                "seconds",
                "gpu_seconds",
            )
        ),
        "space": bent_words(("missing.yaml", ".", "")),
        "grid_points": st.sampled_from((2, 3, 50, 10**9)),
        "study": bent_words(("mine", "my-study.1", ".", "..", "...", "../x", "journal.log", "a/b")),
        "storage": bent_words(
            (
                "sqlite:///studies.db",
                "sqlite:///no/such/folder/s.db",
                "sqlite://",
                "redis://x",
                "nothing",
                "mysql://",
            )
        ),
        "jobs": st.none() | st.integers(1, 10**6),
        "seed": st.integers(-5, 99) | st.sampled_from((2**31, 2**32 - 1, 2**32, 2**64, -(10**30))),
        "probe": bent_words(("fdd", "psaq_vit", "maskaq", "real_data", "fp32", "image_folder")),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(choices)), max_size=3, unique=True))
    return TuneOptions(**{name: draw(choices[name]) for name in chosen})


def check_search(options: TuneOptions, folder: Path) -> bool:
    """A search's options: prepared, its study opened, its first settings queued."""
    rows = Rows(suite="digits_w4a4", methods=("psaq_vit",))
    request = Request(rows, Places(store=str(folder / "store")), Machine(device="cpu"))

    def open_it() -> None:
        prepared = prepare(request, options)
        assert prepared.limits.trials >= 1
        study = prepared.open_study()
        studies.queue_first(study, prepared.space, prepared.grid[:3])
        study.ask(studies.distributions(prepared.space))

    return is_accepted(open_it, tuple(f"--{word}" for word in _TUNE_FLAGS))


_TUNE_FLAGS = (
    "budget",
    "sampler",
    "pruner",
    "objective",
    "space",
    "study",
    "probe",
    "seed",
    "grid",
    "trials",
)


# ----- what a store and a tracking server give back


def records() -> st.SearchStrategy[Any]:
    """Records as JSON, as a tracking server gives them back."""
    made = (fakes.record(), fakes.record("fp32"), fakes.detection(), fakes.failed())
    return bent(st.sampled_from(made).map(lambda one: json.loads(json.dumps(one.to_json())))).map(_as_json)


def _as_json(data: Any) -> Any:
    """The data as JSON gives it back; what it cannot hold becomes text."""
    try:
        return json.loads(json.dumps(data, default=str, skipkeys=True))
    except ValueError:
        return "more digits than JSON takes"


def check_records(data: Any, folder: Path) -> bool:
    """A record read back: shown beside a good one in every format."""
    read: list[Record] = []
    if not is_accepted(lambda: read.append(Record.from_json(data)), ("record", "field"), ValueError):
        return False
    board = board_of([fakes.record("fp32"), fakes.record("maskaq"), *read])
    for format in FORMATS:
        assert render(board, format, console=Console(width=120))
    return True


@dataclass(frozen=True)
class Damage:
    """A small file of a store with other content than it had."""

    file: str
    content: bytes


_STORE_FILES = {
    "failures/{key}.json": {"status": "failed", "reason": "the loss is not finite"},
    "timings.json": {"evaluate:digits:digits_vit:0": 1.5},
    "progress/{key}.json": {"step": 1, "total": 5, "losses": {"entropy": 0.5}},
    "reports/{key}.json": {"1": 50.0, "2": 60.5},
}


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """One file of a store, bent."""
    file = draw(st.sampled_from(sorted(_STORE_FILES)))
    data = draw(bent(st.just(_STORE_FILES[file])))
    text = json.dumps(_as_json(data)) if draw(st.integers(0, 9)) else "[" * 5000
    return Damage(file, draw(bent_files(st.just(text))))


def check_store(damage: Damage, folder: Path) -> bool:
    """A damaged file of a store: what reads it says nothing, or what it can."""
    store: Store = open_store(folder / "store").create()
    session = open_outline(
        Request(Rows(suite="digits_w4a4", methods=("psaq_vit",)), Places(store=str(store.root)))
    )
    key = session.plan.trials[-1].evaluation
    file = store.root / damage.file.format(key=key)
    _written(file, damage.content)
    records = records_of(session.plan, store)
    board = board_of(records)
    assert render(board, "table", console=Console(width=120))
    with open(os.devnull, "w", encoding="utf-8", errors="backslashreplace") as nowhere:
        print_plan(session, Console(file=nowhere, width=100), every_stage=True)
    store.add_timings({"a": 1.0})
    for step, value in store.reports(key).items():
        assert isinstance(step, int)
        assert isinstance(value, float | int)
    progress = store.progress(key)
    assert progress is None or {"step", "total"} <= set(progress)
    return store.failure(key) is not None or progress is not None or bool(store.reports(key))


KINDS = {
    "suite files": Kind(suite_files, check_suite, 3400),
    "config files": Kind(config_files, check_config, 1200),
    "set-files": Kind(files_of(bent(set_files())), check_set_file, 1000),
    "space files": Kind(files_of(bent(spaces())), check_space, 1000),
    "--set": Kind(assignments(), check_assignments, 1200),
    "--bits": Kind(bit_texts, check_bits, 300),
    "--seeds": Kind(seed_texts, check_seeds, 300),
    "names": Kind(names(), check_names, 400),
    "places": Kind(locations(), check_locations, 500),
    "searches": Kind(searches(), check_search, 200),
    "records": Kind(records(), check_records, 300),
    "stores": Kind(damages(), check_store, 200),
}
