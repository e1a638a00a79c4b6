from __future__ import annotations

from pathlib import Path

import pytest

from harness.planning import code_digest as module
from harness.planning.code_digest import PROJECT, code_digest


def forget() -> None:
    for cached in (module.code_digest, module._read):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def fresh_caches():
    forget()


def version_of(text: str, folder: Path) -> str:
    file = folder / "plugin.py"
    file.write_text(text)
    forget()
    return code_digest(file)


def test_comments_formatting_and_docstrings_do_not_matter(tmp_path):
    plain = version_of("def f(x):\n    return x + 1\n", tmp_path)
    dressed = version_of(
        '"""Module."""\n\n\ndef f(x):  # why\n    """Doc."""\n    return (x + 1)\n', tmp_path
    )
    assert plain == dressed


EVERY_VERSION_READS_OTHERWISE = '''
from dataclasses import dataclass
@dataclass
class Found:
    rows: dict = {**{}, "a": None}
    def said(self, *names: str, width=3, **more) -> str:
        """Fields that only some versions know, and an f-string that 3.12 ends with an empty string."""
        if not names:
            return
        return f"{len(names)} of {width:>{width}} {names!r}" f"{more}"
async def match(found):
    match found:
        case Found(rows=[]) | None: pass
        case _: yield lambda x, /: x[..., 1:]
'''


def test_every_version_of_python_reads_a_file_alike(tmp_path):
    """A cluster's nodes and a laptop share a store; each wrote down the same digest, 3.10 to 3.13."""
    assert version_of(EVERY_VERSION_READS_OTHERWISE, tmp_path) == "8dced00bd9788699"


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


def closure_of(*parts: str) -> set[str]:
    closure: set[Path] = set()
    module._collect(PROJECT.joinpath(*parts), closure)
    return {file.relative_to(PROJECT).as_posix() for file in closure if file.is_relative_to(PROJECT)}


def test_what_is_imported_for_type_checkers_alone_does_not_count(tmp_path):
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from methods.bits import Bits\n"
    file = tmp_path / "plugin.py"
    file.write_text(guarded)
    closure: set[Path] = set()
    module._collect(file, closure)
    assert closure == {file}


def test_relative_imports_and_re_exports_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    package = tmp_path / "methods" / "engines"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .training import train\n")
    (package / "training.py").write_text("from .. import bits\n")
    (tmp_path / "methods" / "bits.py").write_text("")
    plugin = tmp_path / "plugin.py"
    plugin.write_text("from methods.engines import train\n")
    closure: set[Path] = set()
    module._collect(plugin, closure)
    assert {file.relative_to(tmp_path).as_posix() for file in closure} == {
        "plugin.py",
        "methods/engines/__init__.py",
        "methods/engines/training.py",
        "methods/bits.py",
    }


def test_a_synthesizer_depends_on_its_parts_and_not_on_other_methods_or_tables_of_names():
    closure = closure_of("methods", "psaq_vit.py")
    assert "methods/synthesis/patch_similarity.py" in closure
    assert not closure & {"methods/maskaq.py", "methods/registry.py", "backbones/specs.py"}
