"""`harness ui`: MLflow's own web interface on the records, bound to this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import typer

from harness.cli.options import with_options
from harness.errors import UsageError
from harness.planning.request import Places
from harness.suites.locations import find_locations


@with_options(Places, only=("store", "config"))
def ui(places: Places, port: int = typer.Option(5000, min=1, max=65535, help="Port on localhost.")) -> None:
    """Open MLflow's web interface on the records, on localhost; Ctrl-C ends it."""
    database = find_locations(store=places.store, config=places.config).store / "mlflow.db"
    if not database.is_file():
        raise UsageError(f"no records at {database}: run a suite first, or give --store DIR")
    print(f"MLflow on {database}: http://127.0.0.1:{port}", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    defaults = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A session of its own: MLflow starts servers and job runners, and all of them have to end with it.
    server = subprocess.Popen(command, env={**defaults, **os.environ}, start_new_session=True)
    try:
        code = server.wait()
    except KeyboardInterrupt:
        code = 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
    raise typer.Exit(code)
