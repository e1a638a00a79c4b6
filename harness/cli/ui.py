"""`harness ui`: MLflow's own web interface on the records, bound to this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

from harness.cli.options import with_options
from harness.cli.stopping import terminate_as_interrupt
from harness.errors import UsageError
from harness.planning.request import Places
from harness.suites.locations import find_locations
from results.database import copied, database_of, database_uri, fault_of, is_created, is_writable


@with_options(Places, only=("store", "config"))
def ui(places: Places, port: int = typer.Option(5000, min=1, max=65535, help="Port on localhost.")) -> None:
    """Open MLflow's web interface on the records, on localhost; Ctrl-C ends it."""
    database = database_of(find_locations(store=places.store, config=places.config).store)
    if not database.is_file():
        raise UsageError(f"no records at {database}: run a suite first, or give --store DIR")
    _refuse_busy(port)
    with contextlib.ExitStack() as stack:
        served, said = database, ""
        if not is_writable(database):
            served = copied(database, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            said = f" (a copy, {served}, since the store cannot be written)"
        _refuse_broken(served, database)
        print(f"MLflow on {database}{said}: http://127.0.0.1:{port}", flush=True)
        code = _served(served, port)
    raise typer.Exit(code)


def _refuse_busy(port: int) -> None:
    """Raise UsageError where the port cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise UsageError(f"port {port} cannot be used ({reason}): give another one with --port") from None


def _refuse_broken(served: Path, database: Path) -> None:
    """Raise UsageError where MLflow's server would end with a traceback; no suite is named to refill it."""
    try:
        fault = fault_of(served) if is_created(served) else "it is empty"
    except sqlite3.Error as error:
        raise UsageError(f"the tracking database {database} cannot be read ({error})") from None
    if fault:
        raise UsageError(
            f"the tracking database {database} cannot be used ({fault}): `harness leaderboard --suite NAME` "
            "sets it aside and fills a new one from the store's records"
        )


def _served(database: Path, port: int) -> int:
    """Run MLflow's server until it ends or Ctrl-C; its exit status."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", database_uri(database)]
    defaults = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    terminate_as_interrupt()
    # A session of its own: MLflow starts servers and job runners, and all of them have to end with it.
    server = subprocess.Popen(command, env={**defaults, **os.environ}, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
