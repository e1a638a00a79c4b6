from __future__ import annotations

from pathlib import Path

import pytest

from harness.planning import code_digest as module
from harness.planning.code_digest import PROJECT, code_digest


@pytest.fixture(autouse=True)
def fresh_caches():
    module._imports.cache_clear()
    module._tree_digest.cache_clear()


def version_of(text: str, folder: Path) -> str:
    file = folder / "plugin.py"
    file.write_text(text)
    module._imports.cache_clear()
    module._tree_digest.cache_clear()
    return code_digest(file)


def test_comments_formatting_and_docstrings_do_not_matter(tmp_path):
    plain = version_of("def f(x):\n    return x + 1\n", tmp_path)
    dressed = version_of(
        '"""Module."""\n\n\ndef f(x):  # why\n    """Doc."""\n    return (x + 1)\n', tmp_path
    )
    assert plain == dressed


def test_behaviour_matters(tmp_path):
    assert version_of("def f(x):\n    return x + 1\n", tmp_path) != version_of(
        "def f(x):\n    return x + 2\n", tmp_path
    )


def test_imported_project_files_count_and_foreign_ones_do_not(tmp_path):
    alone = version_of("import math\n", tmp_path)
    assert alone != version_of("import math\nfrom methods.bits import Bits\n", tmp_path)
    closure: set[Path] = set()
    file = tmp_path / "plugin.py"
    module._collect(file, closure)
    assert PROJECT / "methods" / "bits.py" in closure


def test_the_place_of_the_file_does_not_matter(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert version_of("x = 1\n", tmp_path / "a") == version_of("x = 1\n", tmp_path / "b")


def test_the_code_of_a_family_counts_for_its_own_backbones_alone():
    closures: dict[str, set[Path]] = {
        "loading.py": set(),
        "families/vit.py": set(),
        "families/yolos.py": set(),
    }
    for name, closure in closures.items():
        module._collect(PROJECT / "backbones" / name, closure)
    model = PROJECT / "backbones" / "families" / "yolos_model.py"
    assert [model in closure for closure in closures.values()] == [False, False, True]
