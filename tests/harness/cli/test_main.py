"""The command itself: its version, and how wrong usage ends."""

from __future__ import annotations

import importlib.metadata
import platform

import pytest


def test_the_version_names_what_results_depend_on(harness):
    status, out, _ = harness("--version")
    assert status == 0
    torch = importlib.metadata.version("torch")
    assert out.startswith("harness ")
    assert out.endswith(f"(Python {platform.python_version()}, torch {torch})\n")


def test_every_fault_of_a_request_has_its_line(harness):
    status, out, err = harness("doctor", "--data", "moon=/a", "--weights", "deit_tiny")
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("harness: --") for line in lines)
    assert "moon" in lines[0]
    assert "write --weights NAME=PATH" in lines[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run",), "--suite"),
        (("run", "--suite", "digits_w4a4", "--batch-size", "0"), "--batch-size"),
        (("run", "--suite", "digits_w4a4", "--colour", "red"), "--colour"),
        (("paint",), "paint"),
        (("list", "colours"), "colours"),
        (("synthesize", "--method", "a,b", "--backbone", "digits_vit"), "exactly one"),
    ],
)
def test_wrong_usage_ends_with_status_2(harness, words, said):
    status, out, err = harness(*words)
    assert (status, out) == (2, "")
    assert said in err


def test_good_usage_ends_with_status_0(harness):
    status, out, err = harness("list", "engines", "--verbose")
    assert (status, err) == (0, "")
    assert "not established:" in out
    assert "deviations:" in out
    assert "sources:" in out
