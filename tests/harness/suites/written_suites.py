"""Suite files written for a test, and what is said of them."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.suites.loading import load_suite

GOOD = """\
task: digits
backbones: [digits_vit]
bits: [w4a4]
methods: [psaq_vit]
"""


def written(tmp_path, text: str) -> str:
    """The path of a suite file with this text."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return str(file)


def faults(tmp_path, text: str) -> str:
    """The faults of a suite file with this text, a line each."""
    with pytest.raises(UsageError) as error:
        load_suite(written(tmp_path, text))
    return str(error.value)
