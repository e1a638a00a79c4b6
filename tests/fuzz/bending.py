"""Bends valid input: nested data, words and texts, as hypothesis strategies. Knows nothing of what they mean.

bent(st.just({"task": "digits", "bits": ["w4a4"]}))  # 0 to 3 changes: {"task": None, "bits": ["w4a4"]}
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

ODD_TEXTS = (
    "",
    " ",
    "x" * 5000,
    "é",
    "w4a4",
    "null",
    "nan",
    "-inf",
    "1e400",
    "9" * 5000,
    "0x10",
    "1_000",
    "４",
    "true",
    "[bold]",
    "[/bold]",
    "../../outside",
    "/",
    "~nobody-of-that-name/x",
    "x/" * 3000,
    "a.b.c",
    "a=b",
    "two\nlines",
    "a\ttab",
    "\x1b[31mred\x1b[0m",
    "\x07",
    "\x00",
    "\x85\u2028",
    "\u202egnp.exe",
    "\udcff",
    "\ud800",
    "{}",
    "%s %(x)s",
    "'",
    '"; drop',
)
ODD_NUMBERS = (
    0,
    -1,
    1,
    7,
    2**31,
    2**63,
    2**64,
    -(2**70),
    10**400,
    -(10**400),
    10**5000,
    0.5,
    -0.0,
    1e-320,
    1e300,
    float("nan"),
    float("inf"),
    float("-inf"),
)
ODD_OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {None: 1},
    {1: {2: 3}},
    b"bytes",
    datetime.date(2026, 1, 1),
    datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC),
    {"a", "b"},
    [[[[[["deep"]]]]]],
    {"low": 1, "high": "2"},
)
odd_texts = st.sampled_from(ODD_TEXTS)
odd_values = st.one_of(
    odd_texts,
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_OTHERS).map(copy.deepcopy),
    st.integers(-3, 300),
    st.floats(-2, 300),
    st.text(max_size=5),
)


@st.composite
def near_misses(draw: st.DrawFn, word: str) -> str:
    """A word with one slip of the fingers."""
    place = draw(st.integers(0, max(0, len(word) - 1)))
    slips = (
        word[:place] + word[place + 1 :],
        word[:place] + word[place : place + 1] * 2 + word[place + 1 :],
        word[:place] + "x" + word[place:],
        word.upper(),
        word.replace("_", "-"),
        f" {word} ",
        word + word,
    )
    return draw(st.sampled_from(slips))


@st.composite
def bent(draw: st.DrawFn, whole: st.SearchStrategy[Any], most: int = 3) -> Any:
    """Nested data with up to `most` changes."""
    data = copy.deepcopy(draw(whole))
    for _ in range(draw(st.integers(0, most))):
        data = _bent_once(draw, data)
    return data


def _bent_once(draw: st.DrawFn, data: Any) -> Any:
    places = list(_places(data))
    if not places or draw(st.integers(0, 40)) == 0:
        return draw(odd_values)
    container, key = draw(st.sampled_from(places))
    change = draw(st.sampled_from(("drop", "value", "value", "name", "twice", "wrap", "swap", "more")))
    value = container[key]
    if change == "drop":
        del container[key]
    elif change == "value":
        container[key] = draw(near_misses(value)) if isinstance(value, str) and value else draw(odd_values)
        if draw(st.booleans()):
            container[key] = draw(odd_values)
    elif change == "wrap":
        container[key] = draw(st.sampled_from(([value], {"a": value}, [value, value])))
    elif change == "swap":
        other, place = draw(st.sampled_from(places))
        container[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else other[place])
    elif isinstance(container, list):
        container.append(copy.deepcopy(value) if change == "twice" else draw(odd_values))
    elif change == "name":
        name = draw(near_misses(key)) if isinstance(key, str) else draw(odd_texts)
        container[name] = container.pop(key)
    else:
        container[draw(st.one_of(odd_texts, st.sampled_from((None, 1, 1.5, True))))] = draw(odd_values)
    return data


def _places(data: Any) -> Any:
    """Every (container, key) of nested lists and dicts."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(entries):
        yield data, key
        yield from _places(value)


SNIPPETS = (
    "\t",
    "? ",
    "- ",
    ": ",
    "&a ",
    "*a ",
    "!!float x",
    "!!int x",
    '!!int ""',
    "!!bool x",
    "!!timestamp x",
    "!!binary é",
    "!!set {a}",
    "!!omap [a: 1]",
    "!!python/object:os.system {}",
    "2026-13-45",
    "2026-01-01",
    "0x" + "f" * 5000,
    "1" * 5000,
    "1:30",
    "010",
    "~",
    ".nan",
    "-.inf",
    "%YAML 9.9\n",
    "\n---\n",
    "\n...\n",
    "\ufeff",
    "\x00",
    "\x1b",
    "\u2028",
    '"\\uDCFF"',
    '"\\0"',
    "# é\n",
    "[",
    "}",
    "'",
    "|\n",
    "x" * 5000,
)
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-32")


@st.composite
def bent_files(draw: st.DrawFn, texts: st.SearchStrategy[str], most: int = 2) -> bytes:
    """A text with up to `most` snippets put in or pieces cut out, in one encoding or another."""
    text = draw(texts)
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(text)))
        if draw(st.integers(0, 3)) == 0:
            text = text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text[start:]
        else:
            text = text[:start] + draw(st.sampled_from(SNIPPETS)) + text[start:]
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("\n", draw(st.sampled_from(("\r\n", "\r", "\n\n", "\x85"))))
    if draw(st.integers(0, 9)) > 0:
        return text.encode("utf-8", "replace")
    return text.encode(draw(st.sampled_from(ENCODINGS)), "replace")


@st.composite
def bent_words(draw: st.DrawFn, words: Sequence[str]) -> str:
    """One of the words as it is, slightly mistyped, or something else altogether."""
    word = draw(st.sampled_from(list(words)))
    kind = draw(st.integers(0, 5))
    if kind < 3:
        return word
    return draw(near_misses(word)) if kind < 5 else draw(odd_texts)
