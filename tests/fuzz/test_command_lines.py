"""Bent command lines end with status 0, or with 2 and sentences; never with a traceback."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli.main import main
from tests.fuzz.bending import bent_words, odd_texts
from tests.fuzz.refusals import nothing_written_outside

VALUES = {
    "--suite": ("digits_w4a4", "digits_w3a3"),
    "--methods": ("psaq_vit", "maskaq,mimiq", "fp32"),
    "--backbones": ("digits_vit", "digits_swin"),
    "--bits": ("w4a4", "w3a3,w8a8"),
    "--seeds": ("0", "0,1", "7"),
    "--engines": ("lsq_qat", "psaq_ptq,repq_ptq"),
    "--budget": ("smoke", "fast", "paper"),
    "--scope": ("whole",),
    "--set": ("lsq_qat.epochs=3", "psaq_vit.iterations=20", "maskaq.lsq_qat.epochs=2"),
    "--set-file": ("best.yaml",),
    "--plugin": ("mine.py",),
    "--data": ("imagenet=DIR",),
    "--weights": ("deit_tiny=FILE",),
    "--store": ("results", "a b"),
    "--config": ("harness.yaml",),
}
MORE = {
    "plan": {"--stages": None},
    "list": {"--format": ("table", "json"), "--verbose": None},
    "leaderboard": {"--format": ("table", "md", "csv"), "--output": ("board.md",), "--no-published": None},
    "run": {"--scheduler": ("inline", "ray"), "--device": ("cpu", "auto"), "--batch-size": ("8", "nan")},
    "tune": {"--trials": ("5",), "--study": ("mine",), "--seed": ("3",), "--budget-seconds": ("60", "nan")},
}
FIXED = {
    "plan": ["--suite", "digits_w4a4"],
    "list": ["methods"],
    "leaderboard": ["--suite", "digits_w4a4"],
    "run": ["--suite", "digits_w4a4", "--dry-run"],
    "tune": ["--suite", "digits_w4a4", "--sampler", "nothing"],  # always refused, so that no search starts
}
"""What keeps every verb from doing any work."""


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A verb with a few options, some of them mistyped."""
    verb = draw(st.sampled_from(sorted(MORE)))
    shared = {"--plugin": VALUES["--plugin"]} if verb == "list" else VALUES
    options = {**shared, **MORE[verb]}
    words = [verb, *FIXED[verb]]
    for flag in draw(st.lists(st.sampled_from(sorted(options)), max_size=3)):
        words.append(draw(bent_words((flag,))) if draw(st.integers(0, 9)) == 0 else flag)
        if (values := options[flag]) is not None:
            words.append(draw(bent_words(values)))
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(odd_texts))
    return [word.replace("\0", "") for word in words]  # no system passes one on


def status_of(words: list[str]) -> tuple[int, str]:
    """Exit status of a command line, and what it wrote to both streams."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    before, sys.argv = sys.argv, ["harness", *words]
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), written.getvalue().decode()
    finally:
        sys.argv = before
    return 0, written.getvalue().decode()


def tried(count: int, folder: Path) -> Counter[int]:
    """How often each status was seen."""
    seen: Counter[int] = Counter()

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(command_lines())
    def check(words: list[str]) -> None:
        with nothing_written_outside(folder):
            status, written = status_of(words)
        seen[status] += 1
        assert status in (0, 2), written
        assert "Traceback" not in written
        assert status == 0 or written.strip(), "refused without a word"

    check()
    return seen


def test_a_bent_command_line_ends_with_0_or_2(tmp_path):
    assert set(tried(16, tmp_path / "work")) == {0, 2}


@pytest.mark.slow
def test_hundreds_of_bent_command_lines_end_with_0_or_2(tmp_path):
    seen = tried(400, tmp_path / "work")
    print(f"command lines: {seen.total()}, {seen[0]} with status 0, {seen[2]} with status 2")
    assert min(seen[0], seen[2]) > 40
