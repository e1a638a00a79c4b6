"""What reaches the terminal: commands in one piece, and no control character but the harness's own."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys

import pytest
from rich.table import Table
from typer import Exit

from harness.cli.hints import shell_words
from harness.cli.printable_console import PrintableConsole
from harness.cli.stopping import stoppable
from harness.cli.terminal import output_console
from harness.errors import one_line, printable

HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 back\x08 over\rline \x9b1m \u202eturned"
ARGUMENTS = [
    "--suite", "a 'suite' with \"quotes\".yaml", "--store", "/data/[bold]my store[/bold]/:cat:/[red",
    "--data", "imagenet=/a/$HOME/`x`/\\y", "--weights", "deit_tiny=" + "long/" * 60 + "日本.pt",
]  # fmt: skip


def console_of(width: int, *, colours: bool = False) -> PrintableConsole:
    return PrintableConsole(
        file=io.StringIO(),
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        highlight=False,
        emoji=False,
    )


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("colours", [True, False])
def test_the_command_to_go_on_with_is_the_one_that_was_given(monkeypatch, width, colours):
    monkeypatch.setattr(sys, "argv", ["harness", "tune", *ARGUMENTS])
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    console = console_of(width, colours=colours)
    try:
        with pytest.raises(Exit), stoppable(console, "Kept.", resume_with=("--resume",)):
            raise KeyboardInterrupt
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    said, line = console.file.getvalue().splitlines()
    assert said == "stopped. Kept."
    assert shlex.split(line) == ["harness", "tune", *ARGUMENTS, "--resume"]


@pytest.mark.parametrize(
    "word", ["a\tb\nc", "\x1b[31mred", "it's \x07", "\udcff\udcfe latin", "back\\slash\r"]
)
def test_what_a_terminal_cannot_show_is_written_for_the_shell(word):
    written = shell_words([word])
    assert written.isprintable()
    command = ["bash", "-c", f"printf %s {written}"]
    said = subprocess.run(command, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert said.decode(errors="surrogateescape") == word


def test_no_control_character_of_a_name_reaches_the_terminal():
    console = console_of(60, colours=True)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    for thing in (HOSTILE, table):
        console.print(thing, markup=False)
    shown = console.file.getvalue()
    for unwanted in ("\x1b[31m", "\x1b]0", "\x07", "\x08", "\r", "\x9b", "\u202e"):
        assert unwanted not in shown
    assert "red" in shown
    assert "turned" in shown


def test_styles_of_our_own_stay():
    console = console_of(60, colours=True)
    console.print("[bold]ours[/bold]")
    assert "\x1b[1mours\x1b[0m" in console.file.getvalue()


def test_verbs_print_to_such_a_console_and_replace_no_words_by_pictures(capsys):
    output_console().print("/data/:cat:/\x1b[31mx", markup=False)
    assert capsys.readouterr().out == "/data/:cat:/x\n"


def test_the_error_of_a_library_becomes_one_plain_line():
    error = ValueError("\x1b[33mTrial 3 failed\x1b[0m\n  because\tof (Background on this error at: url)")
    assert one_line(error) == "Trial 3 failed because of (Background on this error at: url)"
    assert one_line(error, before="(Background on") == "Trial 3 failed because of"
    assert one_line(ValueError("\x1b[0m")) == "ValueError"


def test_printable_text_is_left_alone():
    assert printable("é 日本\n\t± …") == "é 日本\n\t± …"


@pytest.mark.parametrize("columns", ["60", "80"])
def test_help_names_every_option_whole(columns):
    command = [sys.executable, "-m", "harness.cli.main", "run", "--help"]
    environment = {**os.environ, "COLUMNS": columns, "TERMINAL_WIDTH": columns}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= int(columns)
    for flag in ("--methods", "--method", "--backbones", "--allow-fp-mismatch", "--tracking-uri"):
        assert flag in said
