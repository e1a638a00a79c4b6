"""Starts a Ray of this run alone, which nobody else can use, and puts the surroundings back when it stops.

Ray listens on all of the machine's addresses, whatever it is asked to bind. What keeps strangers out is a
token: a random one, in the environment of this process and its workers, in no file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_OBJECT_STORE_BYTES = 200 * 2**20
_TOKEN = secrets.token_hex(32)
_MARK, _MARK_VALUE = "DFQ_HARNESS_RAY", secrets.token_hex(16)
"""In the environment of Ray's processes alone, so that those that outlive it are found."""
_CORE = ("gcs_server", "raylet")
"""Ray is lost when one of them ends. An agent that ends takes the raylet with it."""
_SETTINGS: dict[str, Any] = {
    "address": "local",  # a Ray of our own, whatever RAY_ADDRESS says and whichever clusters run here
    "include_dashboard": False,
    "object_store_memory": _OBJECT_STORE_BYTES,
    "log_to_driver": False,
    "logging_level": logging.ERROR,
}


class LocalRay:
    """A Ray on this machine from `start` until `stop`; workers import this project's modules first."""

    def __init__(self) -> None:
        self._before: Mapping[str, str | None] = {}
        self._core: Mapping[str, Sequence[Any]] = {}
        """Name -> processes, as `subprocess.Popen`."""
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start Ray. Raises whatever Ray raises, with the environment as it was before."""
        self._before = _exchange({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN, "RAY_ADDRESS": None})
        try:
            _read_environment_again()
            import ray

            before = _exchange({_MARK: _MARK_VALUE})
            try:
                with working_from(project_root()):
                    ray.init(**_SETTINGS)
            finally:
                _exchange(before)
        except BaseException:
            self.stop()
            raise
        node: Any = ray._private.worker._global_node
        started = node.all_processes
        self._guard = _guard_of(
            _with_children(one.process.pid for known in started.values() for one in known)
        )
        self._core = {name: [known.process for known in started.get(name, ())] for name in _CORE}

    def lost(self) -> str:
        """Which of the processes without which there is no Ray has ended; empty while all of them live."""
        ended = (name for name, known in self._core.items() if any(p.poll() is not None for p in known))
        return next(ended, "")

    def stop(self) -> None:
        """Stop Ray, end what is left of it, and put the environment back."""
        import ray

        self._core = {}
        ray.shutdown()
        if self._guard is not None:
            self._guard.communicate(b"stopped\n")
            self._guard = None
        _end_leftovers()
        _exchange(self._before)
        _read_environment_again()


def project_root() -> Path:
    """The folder that holds the package `harness`: a checkout, or where packages are installed."""
    return Path(__file__).resolve().parents[3]


@contextlib.contextmanager
def working_from(folder: Path) -> Iterator[None]:
    """Make `folder` the working folder while Ray starts: Ray's workers look for modules there first.

    Else a `tasks.py` in the user's folder would take the place of this project's package in every worker.
    """
    with contextlib.chdir(folder):
        yield


def _exchange(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set variables of the environment, or remove those that are None; gives what they were."""
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before


def _read_environment_again() -> None:
    """Ray reads its settings once, at its import, and keeps the first token that it sees."""
    raylet = sys.modules.get("ray._raylet")
    if raylet is not None:
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def _end_leftovers() -> None:
    """Kill the workers that are left: one that computes outlives a raylet that was killed, with its claim."""
    import psutil  # comes with Ray

    mine = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != mine and process.environ().get(_MARK) == _MARK_VALUE:
                process.send_signal(signal.SIGKILL)


def _with_children(processes: Iterable[int]) -> list[int]:
    """Those processes and all under them."""
    import psutil  # comes with Ray

    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            one = psutil.Process(process)
            found += [each.pid for each in (one, *one.children(recursive=True))]
    return found


def _guard_of(processes: Sequence[int]) -> subprocess.Popen[bytes]:
    """A shell that kills the processes when this one ends without a word, as by SIGKILL.

    Ray's agents look for a lost GCS for a minute before they end by themselves.
    """
    ids = " ".join(map(str, processes))
    script = f'read -r word; [ -n "$word" ] || {{ sleep 3; kill -9 {ids}; }} 2>/dev/null'
    return subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # else whoever reads this process's output would wait for the shell
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
