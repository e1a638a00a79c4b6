"""Reads every YAML file that a user gives: data, the line of each key, and what is wrong with it.

Knows nothing of what a file means. A few lines of YAML can stand for billions of values, through anchors that
repeat each other, so a file is measured as it would be written out in full, before anything of it is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backbones.names import shown
from harness.errors import UsageError

if TYPE_CHECKING:
    import yaml

_MOST_BYTES = 2**20
_MOST_VALUES = 20_000
"""Values of a file with every alias written out."""
_MOST_LEVELS = 20
_LONGEST_KEY = 200
_ODD = "a value is not what its tag says"
_MERGE = "tag:yaml.org,2002:merge"


class YamlFile(NamedTuple):
    """A parsed YAML file."""

    data: Any
    """None where it is empty or not valid."""
    lines: dict[str, int]
    """Path of a key, such as `overrides.maskaq` -> its line, from 1."""
    faults: tuple[str, ...] = ()
    """Sentences about syntax and keys given twice, with file and line."""


class _Refused(Exception):
    """What is wrong with a file, and the line."""

    def __init__(self, sentence: str, line: int) -> None:
        super().__init__(sentence)
        self.line = line


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """Parsed YAML and the line of every key; raises UsageError where it is not valid or gives a key twice."""
    data, lines, faults = parse_yaml(path)
    if faults:
        raise UsageError.of(faults)
    return data, lines


def parse_yaml(path: Path) -> YamlFile:
    """Parsed YAML, the line of every key, and what is wrong with its syntax. Never raises.

    Refused are files longer than 1 MiB, nested deeper than 20 levels or with more than 20,000 values once
    their aliases are written out, and aliases inside of what they stand for.
    """
    import yaml

    name = shown(path.name)
    try:
        if path.stat().st_size > _MOST_BYTES:
            return YamlFile(None, {}, (f"{name}: longer than 1 MiB, which no file of settings is",))
        text = path.read_text(encoding="utf-8")
        _measure(text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = dict.fromkeys(_given_twice(root))
        lines: dict[str, int] = {}
        for key, line in _lines_of(root):
            lines.setdefault(key, line)
        data = None if root is None else loader.construct_document(root)
    except _Refused as refused:
        return YamlFile(None, {}, (f"{name}:{refused.line}: {refused}",))
    except Exception as error:  # PyYAML raises plain ValueErrors and AttributeErrors on odd scalars
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or (error if isinstance(error, ValueError) else _ODD)
        problem = " ".join(str(said).split())
        return YamlFile(None, {}, (f"{name}{where}: not valid YAML: {shown(problem)}",))
    return YamlFile(data, lines, tuple(f"{name}:{line}: {fault}" for fault, line in twice))


@dataclass
class _Extent:
    """How large a value is with its aliases written out."""

    values: int = 1
    levels: int = 1


def _measure(text: str) -> None:
    """Raise _Refused where the values of a text are too many or too deep, or one would contain itself."""
    import yaml

    anchors: dict[str | None, _Extent] = {}
    open_anchors: list[str | None] = []
    open_extents = [_Extent(0, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, extent = open_anchors.pop(), open_extents.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, extent = None, anchors.get(event.anchor, _Extent())
            if event.anchor in open_anchors:
                raise _Refused(f"the alias *{event.anchor} is inside of what it stands for", _line(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            open_anchors.append(event.anchor)
            open_extents.append(_Extent())
            if len(open_anchors) > _MOST_LEVELS:
                raise _Refused(f"nested deeper than {_MOST_LEVELS} levels", _line(event))
            continue
        elif isinstance(event, yaml.ScalarEvent):
            anchor, extent = event.anchor, _Extent()
        else:
            continue
        if anchor is not None:
            anchors[anchor] = extent
        around = open_extents[-1]
        around.values += extent.values
        around.levels = max(around.levels, extent.levels + 1)
        if sum(each.values for each in open_extents) > _MOST_VALUES:
            raise _Refused(f"more than {_MOST_VALUES:,} values with its aliases written out", _line(event))
        if len(open_extents) + extent.levels > _MOST_LEVELS + 1:
            raise _Refused(f"nested deeper than {_MOST_LEVELS} levels", _line(event))


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None  # of an event that was parsed
    return event.start_mark.line + 1


def _lines_of(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Path and line of the keys below a node; its own before those that it merges from elsewhere."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.tag != _MERGE:
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _lines_of(value, f"{prefix}{key.value}.")
    for merged in (value for key, value in node.value if key.tag == _MERGE):
        for source in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            yield from _lines_of(source, prefix)


def _given_twice(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """A sentence and a line for each key that is given twice; raises _Refused for what is no name at all."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _given_twice(entry)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or len(key.value) > _LONGEST_KEY:
            raise _Refused(f"a key is one word of at most {_LONGEST_KEY} letters", line)
        if key.value in seen:
            yield f"the key '{shown(key.value)}' is given twice", line
        seen.add(key.value)
        yield from _given_twice(value)
