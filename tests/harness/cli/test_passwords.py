"""A password in an address that a user gives is in nothing that is printed, raised or written."""

from __future__ import annotations

import shlex
import signal
import socket
import sys
import traceback
from pathlib import Path

import pytest
from typer import Exit

from harness.cli.options import narrowing
from harness.cli.stopping import stoppable
from harness.cli.terminal import output_console
from harness.cli.tracking import Tracking
from harness.errors import UsageError
from harness.planning.request import Request
from harness.tuning.storage import open_storage
from results.tracking import Tracker, TrackingError

SECRET = "p%40ss/w0rd!"
PIECES = ("40ss", "@ss", "w0rd")
"""What is left of it where it falls apart at its slash, or is unescaped."""


@pytest.fixture(scope="module")
def nobody():
    """HOST:PORT where nobody answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


def _secrets_in(text: str) -> list[str]:
    return [piece for piece in PIECES if piece in text]


def _written(folder: Path) -> str:
    """Every file below a folder, and every name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join([*map(str, files), *(file.read_bytes().decode("latin-1") for file in files)])


@pytest.mark.parametrize(
    "address",
    [
        "http://me:{secret}@{nobody}",
        "http://{secret}@{nobody}",
        "me:{secret}@{nobody}",
        "ftp://me:{secret}@{nobody}",
        "postgresql://me:{secret}@{nobody}/db",
    ],
)
@pytest.mark.parametrize("verb", ["run", "tune", "leaderboard"])
def test_a_tracking_server_that_does_not_answer(harness, tmp_path, monkeypatch, nobody, verb, address):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = address.format(secret=SECRET, nobody=nobody)
    more = {"run": ["--scheduler", "inline"], "tune": ["--scheduler", "inline", "--method", "psaq_vit"]}
    suite = "digits_w3a3" if verb == "tune" else "digits_w4a4"
    status, out, err = harness(verb, "--suite", suite, *more.get(verb, []), "--tracking-uri", address)
    assert (status, out) == (2, "")
    assert "--tracking-uri" in err or "no tracking address" in err
    assert _secrets_in(err + _written(tmp_path)) == []


@pytest.mark.parametrize(
    "address",
    [
        "postgresql+psycopg://me:{secret}@{nobody}/db",
        "postgresql+psycopg://{nobody}/db?user=me&password={secret}",
        "postgresql://me:{secret}@{nobody}:no port/db",
        "mysql://me:{secret}@{nobody}/db",
        "me:{secret}@{nobody}",
    ],
)
def test_a_study_storage_that_does_not_answer(tmp_path, capfd, nobody, address):
    with pytest.raises(UsageError, match=r"--study-storage .* cannot be used") as error:
        open_storage(address.format(secret=SECRET, nobody=nobody), tmp_path)
    told = "".join(traceback.format_exception(error.value))
    assert _secrets_in(told + "".join(capfd.readouterr()) + _written(tmp_path)) == []


def test_a_traceback_of_tracking_shows_no_error_with_the_address(nobody, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError) as error:
        Tracker(f"http://me:{SECRET}@{nobody}").load("any")
    assert _secrets_in("".join(traceback.format_exception(error.value))) == []


def test_the_hints_to_go_on_leave_the_password_out(monkeypatch, capsys, nobody):
    address = f"https://me:{SECRET}@{nobody}"
    assert narrowing(Request(), Tracking(uri=address)) == f"--tracking-uri https://me@{nobody}"
    words = ["tune", "--study-storage", f"postgresql://me:{SECRET}@db/x", f"--tracking-uri={address}"]
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(Exit), stoppable(output_console(), "Kept."):
            raise KeyboardInterrupt
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    shown = [
        "harness",
        "tune",
        "--study-storage",
        "postgresql://me@db/x",
        f"--tracking-uri=https://me@{nobody}",
    ]
    assert shlex.join(shown) in capsys.readouterr().out
