"""The version of the code that decides a stage's answer: a digest of its source, comments left out.

A stage is decided by the file of its synthesizer, engine or task and by every project file that this one
imports, however deep. Their syntax trees are hashed without docstrings, so comments, formatting and
documentation do not make an artifact stale, while any change of behaviour does.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("backbones", "methods", "tasks")
_FACTS = (
    "backbones/specs.py",
    "backbones/registry.py",
    "backbones/families/registry.py",
    "methods/registry.py",
    "tasks/registry.py",
)
"""Tables of names: what they say about the thing in question enters the key as settings."""


@functools.cache
def code_digest(*files: Path) -> str:
    """Digest over the files and all project files they import, read once per process."""
    closure: set[Path] = set()
    for file in files:
        _collect(file.resolve(), closure)
    digest = hashlib.sha256()
    for file in sorted(closure, key=_label):
        digest.update(f"{_label(file)}\0{_read(file).digest}\n".encode())
    return digest.hexdigest()[:16]


def _label(file: Path) -> str:
    """Path inside the project, or the bare name of a plug-in: never a machine's path."""
    return file.relative_to(PROJECT).as_posix() if file.is_relative_to(PROJECT) else file.name


def _collect(file: Path, closure: set[Path]) -> None:
    if file in closure or _label(file) in _FACTS:
        return
    closure.add(file)
    for module in _read(file).imports:
        parts = module.split(".")
        if parts[0] in PACKAGES:
            for candidate in _module_files(parts):
                _collect(candidate, closure)


def _module_files(parts: list[str]) -> list[Path]:
    """The file of a module; for `package.name` where name is an attribute, the package's file."""
    base = PROJECT.joinpath(*parts)
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return [candidate]
    return _module_files(parts[:-1]) if len(parts) > 1 else []


class _Source(NamedTuple):
    """What is needed of a file, from one look at it."""

    imports: tuple[str, ...]
    """Dotted names of all that it imports; what only type checkers read decides no answer."""
    digest: str
    """Of its syntax tree without docstrings."""


@functools.cache
def _read(file: Path) -> _Source:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return _Source(tuple(_imports(file, tree)), _tree_digest(tree))


def _imports(file: Path, tree: ast.AST) -> Iterator[str]:
    for node in _run_time_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(file, node)
            yield from (f"{module}.{alias.name}" for alias in node.names if module)


def _absolute(file: Path, node: ast.ImportFrom) -> str:
    """The module of `from module import ...` as a dotted name; empty where it is not the project's."""
    if node.level == 0:
        return node.module or ""
    if not file.is_relative_to(PROJECT):
        return ""
    package = file.relative_to(PROJECT).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but for what stands under `if TYPE_CHECKING:`."""
    yield node
    children: Iterator[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from _run_time_nodes(child)


def _tree_digest(tree: ast.AST) -> str:
    """The digest of a tree, which loses its docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_bare_string(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(_told(tree).encode()).hexdigest()


def _told(part: object) -> str:
    """A part of a tree in words, the same in every version of Python.

    What is absent is not told, nor the empty strings that some versions see at the end of an f-string: newer
    versions know more fields, and leave other ones out.
    """
    if isinstance(part, list):
        return f"[{','.join(map(_told, part))}]"
    if isinstance(part, ast.JoinedStr):
        part = ast.JoinedStr([value for value in part.values if not _is_empty_string(value)])
    if not isinstance(part, ast.AST):
        return repr(part)
    fields = (f"{name}={_told(value)}" for name, value in ast.iter_fields(part) if value not in (None, []))
    return f"{type(part).__name__}({','.join(fields)})"


def _is_empty_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == ""


def _is_bare_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
