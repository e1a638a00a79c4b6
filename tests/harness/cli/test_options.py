"""Options as dataclasses: each reaches its field, stands in its panel, and can be typed again."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from typing import ClassVar

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from harness.cli.completion import completer
from harness.cli.main import app
from harness.cli.options import narrowing, options_of, typed_again, with_options
from harness.cli.tracking import Tracking
from harness.planning.request import Machine, Places, Request, Rows, option

SHARED = (Rows, Places, Machine)
VERBS = (
    "run",
    "tune",
    "plan",
    "list",
    "leaderboard",
    "report",
    "compare",
    "synthesize",
    "analyze",
    "store",
    "ui",
    "schema",
    "doctor",
)


def command_of(*kinds: type, **choices):
    """A command with the options of these dataclasses, and the list its instances are put into."""
    seen: list = []

    @with_options(*kinds, **choices)
    def verb(*parts) -> None:
        seen[:] = parts

    return typer.main.get_command(_app_of(verb)), seen


def _app_of(verb) -> typer.Typer:
    made = typer.Typer(add_completion=False)
    made.command()(verb)
    return made


def parsed(command, words: list[str]) -> list:
    made, seen = command
    made(args=words, standalone_mode=False)
    return list(seen)


def refused(command, words: list[str]) -> int:
    """The exit status of a wrong command line."""
    with pytest.raises(SystemExit) as stopped:
        command[0](args=words)
    return stopped.value.code


def flags_of(command) -> set[str]:
    return {flag for parameter in command[0].params for flag in parameter.opts} - {"--help"}


TYPED = {
    "--suite digits_w4a4": Rows(suite="digits_w4a4"),
    "-s digits_w4a4": Rows(suite="digits_w4a4"),
    "--methods psaq_vit,mimiq": Rows(methods=("psaq_vit", "mimiq")),
    "--methods ' psaq_vit , mimiq,'": Rows(methods=("psaq_vit", "mimiq")),
    "--method psaq_vit -m mimiq": Rows(methods=("psaq_vit", "mimiq")),
    "--backbones deit_tiny --backbone vit_base": Rows(backbones=("deit_tiny", "vit_base")),
    "--bits w4a4,w4a8": Rows(bits=("w4a4", "w4a8")),
    "--seeds 0,1,2": Rows(seeds=("0", "1", "2")),
    "--engines lsq_qat --engine psaq_ptq": Rows(engines=("lsq_qat", "psaq_ptq")),
    "--budget smoke": Rows(budget="smoke"),
    "--scope heads_8bit": Rows(scope="heads_8bit"),
    "--precision fast": Rows(precision="fast"),
    "--set a.b=1,2 --set c.d=3": Rows(assignments=("a.b=1,2", "c.d=3")),
    "--set-file best.yaml": Rows(set_files=("best.yaml",)),
    "--plugin mine.py --plugin yours.py": Rows(plugins=("mine.py", "yours.py")),
    "--oracle": Rows(oracle=True),
    "--data imagenet=/a --data coco=/b": Places(data=("imagenet=/a", "coco=/b")),
    "--weights deit_tiny=/w": Places(weights=("deit_tiny=/w",)),
    "--store results": Places(store="results"),
    "--config mine.yaml": Places(config="mine.yaml"),
    "--scheduler inline": Machine(scheduler="inline"),
    "--ray-address here:6379": Machine(ray_address="here:6379"),
    "--device cuda:1": Machine(device="cuda:1"),
    "--cpus-per-trial 2": Machine(cpus_per_trial=2),
    "--ship-code": Machine(ship_code=True),
    "--accelerator-type H100": Machine(accelerator_type="H100"),
    "--gpus-per-trial 0.5": Machine(gpus_per_trial="0.5"),
    "--batch-size 8": Machine(batch_size=8),
    "--stage-timeout 90.5": Machine(stage_timeout=90.5),
}


@pytest.fixture(scope="module")
def shared():
    return command_of(*SHARED)


@pytest.mark.parametrize("line", TYPED)
def test_each_shared_option_reaches_its_field_and_no_other(shared, line):
    expected = [TYPED[line] if isinstance(TYPED[line], kind) else kind() for kind in SHARED]
    assert parsed(shared, shlex.split(line)) == expected


def test_every_shared_option_is_tried_above(shared):
    assert {word for line in TYPED for word in shlex.split(line) if word.startswith("-")} == flags_of(shared)


@pytest.mark.parametrize(
    "line", ["--batch-size 0", "--cpus-per-trial 0", "--stage-timeout -1", "--seeds", "--batch-size x"]
)
def test_a_value_out_of_range_is_wrong_usage(shared, line):
    assert refused(shared, line.split()) == 2


@dataclass(frozen=True)
class MoreRows(Rows):
    """The shared rows and one field more."""

    panel: ClassVar[str] = "Rows and colours"
    row_colour: str = option("red", help="Colour of the rows.")


def test_one_field_more_is_one_option_more():
    more = command_of(MoreRows)
    assert flags_of(more) - flags_of(command_of(Rows)) == {"--row-colour"}
    assert parsed(more, ["--row-colour", "blue"]) == [MoreRows(row_colour="blue")]
    text = CliRunner().invoke(_app_of(with_options(MoreRows)(lambda rows: None)), ["--help"]).output
    assert "Rows and colours" in text
    assert "Colour of the rows. [default: red]" in text


def test_a_verb_chooses_changes_and_requires_fields():
    assert flags_of(command_of(*SHARED, only=("store", "oracle"))) == {"--store", "--oracle"}
    assert "--oracle" not in flags_of(command_of(Rows, without=("oracle",)))
    changed = command_of(Rows, defaults={"engines": ("lsq_qat",)})
    assert parsed(changed, []) == [Rows(engines=("lsq_qat",))]
    assert parsed(changed, ["--engine", "psaq_ptq"]) == [Rows(engines=("psaq_ptq",))]
    needed = command_of(Rows, required=("suite", "methods"))
    assert refused(needed, ["--suite", "digits_w4a4"]) == 2
    assert parsed(needed, ["--suite", "s", "-m", "m"]) == [Rows(suite="s", methods=("m",))]


@pytest.mark.parametrize("choice", ["only", "without", "required"])
def test_a_choice_of_a_field_that_does_not_exist_is_refused(choice):
    with pytest.raises(TypeError, match="no such option field: colour"):
        with_options(Rows, **{choice: ("colour",)})


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1).filter(
    lambda word: word == word.strip()
)


def values_of(field: dataclasses.Field) -> st.SearchStrategy:
    """Any value a field can hold."""
    if isinstance(field.default, bool):
        return st.booleans()
    if isinstance(field.default, tuple):
        return st.lists(WORDS if field.metadata["commas"] else TEXTS, max_size=3).map(tuple)
    if field.metadata["low"] is not None:
        return (st.none() if field.default is None else st.nothing()) | st.integers(1, 4096)
    return (st.none() if field.default is None else st.nothing()) | TEXTS


def instances(kind: type) -> st.SearchStrategy:
    return st.builds(kind, **{item.field.name: values_of(item.field) for item in options_of(kind)})


ROUND_TRIP = command_of(Rows, Places, Machine)
NARROWED = command_of(Rows, Places, Tracking)


SHELL_WORD = re.compile(r"""(\$'(?:[^'\\]|\\.)*'|(?:'[^']*'|"[^"]*"|[^\s'"])+)(?: |$)""")


def read_by_shell(line: str) -> list[str]:
    """The words of a line as a shell that knows `$'...'` reads them."""
    return [
        re.sub(rb"\\(?:x(..)|(.))", _unescaped, word[2:-1].encode()).decode()
        if word.startswith("$'")
        else shlex.split(word)[0]
        for word in SHELL_WORD.findall(line)
    ]


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[1].decode()) if found[1] else found[2]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.builds(Request, instances(Rows), instances(Places)), instances(Tracking))
@example(
    Request(Rows(suite="--help", assignments=("--", "-s"), methods=("-m",)), Places(store="")), Tracking()
)
def test_the_narrowing_of_a_request_gives_it_again(request_, tracking):
    words = read_by_shell(narrowing(request_, tracking))
    assert parsed(NARROWED, words) == [request_.rows, request_.places, tracking]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.tuples(*map(instances, SHARED)))
def test_what_is_typed_again_gives_the_same(parts):
    words = [word for part in parts for word in typed_again(part)]
    assert parsed(ROUND_TRIP, words) == list(parts)


def test_the_narrowing_names_only_what_was_chosen():
    chosen = Request(Rows(suite="my suite.yaml", seeds=("0", "1"), oracle=True), Places(store="results"))
    assert narrowing(chosen) == "--suite 'my suite.yaml' --seeds 0,1 --oracle --store results"


def help_of(*words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}, prog_name="harness")
    assert result.exit_code == 0
    return result.output


def test_the_options_of_run_stand_in_panels():
    text = help_of("run")
    panels = [
        text.index(f"─ {title} ─") for title in ("What to run", "Where things lie", "How it runs", "Output")
    ]
    places = [text.index(flag) for flag in ("--suite", "--store", "--device", "--tracking-uri")]
    order = [position for pair in zip(panels, places, strict=True) for position in pair]
    assert order == sorted(order)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_eighty_columns(verb):
    text = help_of(*verb.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


@pytest.mark.parametrize(
    ("field", "incomplete", "offered"),
    [
        ("suite", "digits_w3", ["digits_w3a3", "digits_w3a4"]),
        ("methods", "maska", ["maskaq"]),
        ("methods", "mimiq,maska", ["mimiq,maskaq"]),
        ("backbones", "deit_t", ["deit_tiny"]),
        ("engines", "lsq", ["lsq_qat"]),
        ("methods", "no_such", []),
    ],
)
def test_a_shell_is_offered_the_names_that_exist(field, incomplete, offered):
    assert completer(field)(incomplete) == offered


def test_completion_works_through_the_command():
    environment = {"_HARNESS_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "harness run --methods mask"}
    result = CliRunner().invoke(app, [], env=environment, prog_name="harness")
    assert "maskaq" in result.output
    assert "psaq_vit" not in result.output
