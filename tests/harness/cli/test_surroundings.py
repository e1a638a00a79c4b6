"""What the command line says in surroundings that are not as it would like them."""

from __future__ import annotations

import io
import signal
import socket
import sys

import pytest
from rich.console import Console
from typer import Exit
from typer.testing import CliRunner

from harness.cli.main import app
from harness.cli.stopping import stoppable
from harness.cli.streams import never_fail_to_encode
from harness.errors import RunCutShort, UsageError
from harness.store import open_store


def test_a_busy_port_is_named_with_the_option_that_changes_it(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = CliRunner().invoke(app, ["ui", "--store", str(tmp_path), "--port", str(port)])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == f"port {port} cannot be used (it is in use): give another one with --port"


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", "1 ± 2 - ?"), ("ascii", "1 +- 2 - ?")])
def test_a_character_that_the_terminal_lacks_becomes_another(monkeypatch, encoding, shown):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    never_fail_to_encode()
    print("1 ± 2 – ☃", end="", flush=True)
    assert raw.getvalue().decode(encoding) == shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_verb_as_ctrl_c_does(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    console = Console(file=io.StringIO())
    signal.signal(number, signal.SIG_DFL)  # whatever the tests were started with, `nohup` say
    try:
        with pytest.raises(Exit) as stopped, stoppable(console, "Kept."):
            signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert stopped.value.exit_code == 130
    assert "stopped. Kept." in console.file.getvalue()


def test_a_run_cut_short_says_why_what_is_kept_and_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["harness", "tune", "--suite", "a b"])
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    console = Console(file=io.StringIO())
    try:
        with pytest.raises(Exit) as stopped, stoppable(console, "Kept.", resume_with=("--resume",)):
            raise RunCutShort("Ray was lost")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert stopped.value.exit_code == 3
    assert console.file.getvalue() == "Ray was lost. Kept.\n  harness tune --suite 'a b' --resume\n"


def test_a_store_that_cannot_be_made_is_one_sentence_with_its_path(tmp_path):
    file = tmp_path / "a file"
    file.touch()
    with pytest.raises(UsageError, match=rf"the store {file} cannot be written \(.*: Not a directory\)"):
        open_store(file).create()
