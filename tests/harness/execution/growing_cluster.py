"""A Ray cluster on this machine whose autoscaler starts and ends nodes, by Ray's own test provider of nodes.

Ray's `AutoscalingCluster` stops every Ray of the machine first, and needs a file that its wheels lack; this
one has ports and a folder of its own, and ends the processes that bear its mark alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MARK = "DFQ_TEST_CLUSTER"
_OBJECT_STORE = 100 * 2**20


@dataclass(frozen=True)
class GrowingCluster:
    address: str
    mark: str

    def kill_node(self, node_id: str) -> None:
        """End a node's raylet as a machine that is gone would, and the workers under it."""
        for process in _marked(self.mark):
            with contextlib.suppress(Exception):
                if process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING") == node_id:
                    process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def growing_cluster(
    node: Mapping[str, float], most: int, idle_minutes: float = 0.1
) -> Iterator[GrowingCluster]:
    """A head without CPUs, and up to `most` nodes with these resources as long as something asks for them."""
    folder, mark, port = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp")), secrets.token_hex(8), _free_port()
    address = f"127.0.0.1:{port}"
    config = {
        "cluster_name": "growing",
        "max_workers": most,
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": 100.0,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "head_node_id": "f" * 51 + "0" * 5,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "use_node_id_as_ip": True,
        },
        "auth": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {**node, "object_store_memory": _OBJECT_STORE},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], "initialization_commands": [], "setup_commands": [],
        "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"),
        *(f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"),
        *(f"--temp-dir={folder}", f"--object-store-memory={_OBJECT_STORE}"),
        f"--autoscaling-config={folder / 'config.json'}",
    ]
    surroundings = {
        **os.environ,
        _MARK: mark,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(port)
        yield GrowingCluster(address, mark)
    finally:
        for _ in range(3):  # a monitor may start a node while the others end
            for process in _marked(mark):
                with contextlib.suppress(Exception):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.5)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _marked(mark: str) -> Iterator[Any]:
    """Processes, as `psutil.Process`, in whose environment the mark is."""
    import ray

    assert ray  # brings psutil along
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == mark:
                yield process


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError("the head does not answer")
