"""What a kill costs: a small suite is run while its driver or a worker is killed at random, and compared.

    python -m tests.benchmarks.kills --kills 3 --seed 0

The suite is run once undisturbed, then in another store under kills until it ends. Lost is the work of the
stages that were under way in what was killed: all of them with the driver, one with a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.store import Store, open_store

SUITE = "--suite digits_w4a4 --methods maskaq --seeds 0 --budget smoke --device cpu"
CHAIN = "--set maskaq.refresh_every=1 --set lsq_qat.epochs=3"


def main() -> None:
    """Run the suite twice and print a line per kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = (open_store(Path(folder) / name) for name in ("calm", "killed"))
        start = time.monotonic()
        if _started(calm).wait() != 0:
            sys.exit("the undisturbed run failed")
        whole = time.monotonic() - start
        print(f"undisturbed: {whole:.0f} s, {len(calm.stored_keys())} artifacts", flush=True)
        _disturb(killed, asked.kills, whole, random.Random(asked.seed))
        found = answers(killed)  # it may hold more: what a kill kept from being dropped
        same = all(found.get(key) == checksums for key, checksums in answers(calm).items())
        print(f"artifacts {'equal' if same else 'DIFFER from'} those of the undisturbed run")
    sys.exit(not same)


def answers(store: Store) -> dict[str, list[str]]:
    """Key -> checksums of the tensors of every artifact; facts, which hold seconds, are left out."""
    found = {}
    for key in store.stored_keys():
        body = json.loads((store.place(key) / "meta.json").read_text())
        found[key] = [body["data_sha256"], body.get("images_sha256", "")]
    return found


def _disturb(store: Store, kills: int, whole: float, chance: random.Random) -> None:
    """Run the suite to its end, killing so often; a run that ended before its kill is not counted."""
    run, left = _started(store), kills
    while True:
        try:
            run.wait(chance.uniform(0.2, 0.8) * whole if left else None)
        except subprocess.TimeoutExpired:
            left -= 1
            _kill(run, store, chance)
            if run.poll() is not None:
                run = _started(store)
            continue
        if run.returncode == 0:
            return
        sys.exit(f"the run ended with status {run.returncode}")


def _kill(run: subprocess.Popen[bytes], store: Store, chance: random.Random) -> None:
    """Kill the driver, or one of its busy workers where there is one, and say what was lost."""
    workers = _workers_of(run.pid)
    victim = chance.choice([run.pid, chance.choice(workers)]) if workers else run.pid
    before = _under_way(store)
    os.kill(victim, signal.SIGKILL)
    if victim == run.pid:
        run.wait()
    time.sleep(1)
    lost = {key: since for key, since in before.items() if victim == run.pid or key not in _under_way(store)}
    seconds = sum(time.time() - 1 - since for since in lost.values())
    who = "driver" if victim == run.pid else "worker"
    print(f"{who} killed: {len(lost)} stages under way, {seconds:.1f} s of work lost", flush=True)


def _under_way(store: Store) -> dict[str, float]:
    """Key of each stage that is being made -> since when."""
    claims = (store.root / "claims").glob("*.lock")
    notes = {path.stem: store.claimant(path.stem) for path in claims if path.stem not in ("store", "timings")}
    return {key: note["since"] for key, note in notes.items() if note and "since" in note}


def _workers_of(driver: int) -> list[int]:
    """Process ids of the driver's Ray workers that are in a stage."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            busy = path.read_bytes().startswith(b"ray::") and b"IDLE" not in path.read_bytes()
            pid = int(path.parent.name)
            if busy and driver in _ancestors(pid):
                found.append(pid)
        except (OSError, ValueError):
            continue
    return found


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def _started(store: Store) -> subprocess.Popen[bytes]:
    words = [*SUITE.split(), *CHAIN.split(), "--store", str(store.root)]
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli.main", "run", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
