"""The files for clusters: valid where a schema says so, and the batch script's answers to signals."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from harness.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "harness" / "deploy"
FILES = ("Dockerfile", "ray_cluster.yaml", "slurm.sbatch")
RUN = """#!/bin/bash
# Stands in for `harness`: says what it was given, and works until it is stopped or has finished.
echo "harness $*" >> said
trap 'echo "harness stopped" >> said; exit 130' TERM
for ((n = 0; n < {tenths}; n++)); do sleep 0.1; done
exit {status}
"""


def test_every_file_is_part_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(file.name for file in DEPLOY.iterdir()) == sorted(FILES)
    assert "deploy/*" in project["tool"]["setuptools"]["package-data"]["harness"]


@pytest.mark.parametrize("name", FILES)
def test_the_commands_in_the_files_parse(name):
    """A `harness` command in a comment or in a script is one that the command line knows."""
    found = re.findall(r"\bharness ((?:run|plan) [^\n'&]*)", (DEPLOY / name).read_text())
    assert found or name == "Dockerfile"
    for line in found:
        verb, *words = (word for word in shlex.split(line) if word != "$@")
        typer.main.get_command(app).commands[verb].make_context(verb, words)


def test_the_cluster_file_is_valid_for_ray():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], config["available_node_types"]["head"]["resources"]["CPU"]) == (0, 0)
    with pytest.raises(Exception, match="colour"):
        validate_config({**config, "colour": "blue"})


def test_the_image_is_pinned_and_installed_under_the_constraints():
    lines = (DEPLOY / "Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)$", lines, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim", base)  # no host, an exact version
    tested = re.search(r"on Python (\d+\.\d+)\.", (ROOT / "constraints.txt").read_text())[1]
    assert base.startswith(f"python:{tested}.")
    (install,) = re.findall(r"pip install (.*)$", lines, re.MULTILINE)
    assert install == "--constraint constraints.txt ."
    assert "://" not in lines
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", lines, re.MULTILINE) for word in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {name.rstrip("*") for name in packages["include"]} <= copied
    assert re.search(r"^USER (?!root)", lines, re.MULTILINE)


@pytest.fixture
def job(tmp_path):
    """Start the batch script with programs that stand in for `harness` and Slurm's; its process."""

    def start(status: int = 0, tenths: int = 1, grace: int = 1, **more: str) -> subprocess.Popen[str]:
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, text in {
            "harness": RUN.format(tenths=tenths, status=status),
            "scontrol": '#!/bin/bash\necho "scontrol $*" >> said\n',
        }.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        surroundings = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "GRACE": str(grace)}
        surroundings |= {"SUITE": "digits_w4a4", "STORE": "/shared/dfq-store", **more}
        return subprocess.Popen(
            ["bash", DEPLOY / "slurm.sbatch", "--data", "imagenet=/a b"],
            env=surroundings,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def ended(process, folder: Path, *, stop: bool = False) -> tuple[int, list[str]]:
    """The script's status and what the programs under it said, after SIGTERM where `stop`."""
    said = folder / "said"
    while stop and not said.exists():
        time.sleep(0.02)
    if stop:
        time.sleep(0.2)  # until the stand-in has its trap
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return process.returncode, said.read_text().splitlines() if said.exists() else []


STARTED = "harness run --suite digits_w4a4 --store /shared/dfq-store --data imagenet=/a b"
REQUEUED = "scontrol requeue 7"


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_job_that_has_its_answer_stays_out_of_the_queue(job, tmp_path, status):
    assert ended(job(status), tmp_path) == (status, [STARTED])


def test_a_preempted_job_gives_up_what_is_not_finished_in_time_and_comes_back(job, tmp_path):
    status, said = ended(job(tenths=600), tmp_path, stop=True)
    assert (status, said) == (130, [STARTED, "harness stopped", REQUEUED])


def test_a_preempted_job_that_finishes_in_time_is_over(job, tmp_path):
    assert ended(job(tenths=15, grace=30), tmp_path, stop=True) == (0, [STARTED])


def test_a_job_whose_ray_was_lost_comes_back(job, tmp_path):
    assert ended(job(3), tmp_path) == (3, [STARTED, REQUEUED])


@pytest.mark.parametrize("name", ["SUITE", "STORE"])
def test_a_job_without_suite_or_store_says_so(job, tmp_path, name):
    process = job(**{name: ""})
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert f"{name}=" in out
    assert not (tmp_path / "said").exists()


def test_the_signal_comes_before_the_end_and_leaves_time_for_the_grace():
    text = (DEPLOY / "slurm.sbatch").read_text()
    seconds = int(re.search(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.MULTILINE)[1])
    assert seconds > int(re.search(r'GRACE="\$\{GRACE:-(\d+)\}"', text)[1])
