"""What a message repeats of a user's words fits on one line, whatever they hold."""

from __future__ import annotations

import pytest

from backbones.names import quoted, shown, suggestion


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain é", "plain é"),
        ("two\nlines\x1b[1m\u202e\udcff", "two\\nlines\\x1b[1m\\u202e\\udcff"),
        ("x" * 121, "x" * 60 + "..." + "x" * 57),
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
    ],
)
def test_a_value_is_shown_on_one_printable_line(value, text):
    assert shown(value) == text
    assert shown(value).isprintable()


def test_a_number_that_python_does_not_print_is_described():
    assert shown(10**5000) == shown([10**5000]) == "a number of thousands of digits"


def test_text_is_told_from_a_number():
    assert (quoted("4"), quoted(4), quoted(None)) == ("'4'", "4", "null")


@pytest.mark.parametrize("name", [None, 5, 1.5, (), b"fdd", ""])
def test_what_is_no_text_has_near_names_too(name):
    assert suggestion(name, ["psaq_vit", "maskaq"]).startswith(": there are maskaq, psaq_vit")
    assert suggestion("maskaqq", ["psaq_vit", "maskaq"]) == ": did you mean maskaq?"
