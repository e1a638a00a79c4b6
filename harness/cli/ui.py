"""`harness ui`: MLflow's own web interface on the records, bound to this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
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
from results.tracking import database_uri


@with_options(Places, only=("store", "config"))
def ui(places: Places, port: int = typer.Option(5000, min=1, max=65535, help="Port on localhost.")) -> None:
    """Open MLflow's web interface on the records, on localhost; Ctrl-C ends it."""
    database = find_locations(store=places.store, config=places.config).store / "mlflow.db"
    if not database.is_file():
        raise UsageError(f"no records at {database}: run a suite first, or give --store DIR")
    _refuse_busy(port)
    with contextlib.ExitStack() as stack:
        if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
            database = _copied(database, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        print(f"MLflow on {database}: http://127.0.0.1:{port}", flush=True)
        code = _served(database, port)
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


def _copied(database: Path, folder: Path) -> Path:
    """A copy of the database of a store that cannot be written: MLflow opens none that is read-only."""
    return Path(shutil.copyfile(database, folder / database.name))


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
