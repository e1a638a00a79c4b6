"""The tutorial's method and its first command, exactly as printed, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


def harness(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "harness.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty folder with the tutorial's file in it."""
    method, contract = blocks("python")
    (tmp_path / "focus.py").write_text(method)
    (tmp_path / "test_focus.py").write_text(contract)
    return tmp_path


def test_the_method_takes_less_than_forty_lines():
    method, _ = blocks("python")
    assert len(method.splitlines()) < 40


def test_its_contract_is_tested_in_four_lines(folder):
    _, contract = blocks("python")
    assert len([line for line in contract.splitlines() if line]) == 4
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_focus.py"]
    environment = os.environ | {"PYTHONPATH": str(TUTORIAL.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_first_command_ends_in_a_leaderboard_with_the_method(folder):
    program, *words = shlex.split(blocks("sh")[0])
    assert program == "harness"
    done = harness(folder, *words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d +digits_vit +w3a3 +focus \+ lsq_qat +\d+\.\d\d ", done.stdout, re.MULTILINE)


SHORT = shlex.split(
    "--cpus-per-trial 1 --budget smoke --set focus.images=4 --set mimiq.images=4 --set mimiq.iterations=2 "
    "--set lsq_qat.epochs=1"
)


def test_the_comparison_is_planned(folder):
    (command,) = [text for text in blocks("sh")[1:] if "harness run" in text]
    done = harness(folder, *shlex.split(command)[1:], *SHORT, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "5 trials on 1 backbones" in done.stdout


def test_the_analysis_tells_of_the_method(folder):
    (command,) = [text for text in blocks("sh") if "harness analyze" in text]
    done = harness(folder, *shlex.split(command)[1:], *SHORT)
    assert done.returncode == 0, done.stderr
    assert (
        len(re.findall(r"^ focus +\d", done.stdout, re.MULTILINE)) == 4
    )  # attention, two of students, ranges
    assert (folder / "analysis" / "sparsity.png").is_file()


def test_its_setting_is_listed_and_checked(folder):
    listed = harness(folder, "list", "methods", "--verbose", "--plugin", "focus.py")
    assert "Weight of the attention's entropy." in " ".join(listed.stdout.split())
    words = shlex.split(blocks("sh")[0])[1:]
    refused = harness(folder, *words, "--set", "focus.focus_weight=11")
    assert refused.returncode == 2
    assert "focus_weight=11.0 is above 10.0" in refused.stderr
