from __future__ import annotations

import pytest

from results.addresses import shown_address, without_passwords


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:pw@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql+psycopg://me:p/w@x:y@host/db?sslmode=require", "postgresql+psycopg://me@host/db?sslmode=require"),
        ("postgresql://host/db?user=me&password=pw", "postgresql://host/db?user=me&password=***"),
        ("https://me:pw@host:5000/path", "https://me@host:5000/path"),
        ("https://:pw@host", "https://@host"),
        ("https://token@host", "https://***@host"),
        ("https://host/a?api_key=pw#x", "https://host/a?api_key=***#x"),
        ("--tracking-uri=https://me:pw@host", "--tracking-uri=https://me@host"),
        ("me:pw@host", "me@host"),
        ("https:/me:pw@host", "https@host"),
        ("http://tok/en@host", "http://***@host"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("sqlite:////home/me:too@work/x.db", "sqlite:////home/me:too@work/x.db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("", ""),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_password(address, shown):
    assert shown_address(address) == shown


@pytest.mark.parametrize("said", ["p%40ss w", "p@ss w", "p%40ss%20w", "p%40ss+w"])
def test_a_text_about_an_address_holds_its_password_in_no_spelling(said):
    address = "postgresql://me:p%40ss w@host/db"
    text = f"no connection to {address}: '{said}' was refused (password={said.split()[0]})"
    found = without_passwords(text, address)
    assert found.startswith("no connection to postgresql://me@host/db: '***' was refused (password=***")
    assert "ss" not in found.replace("password", "").replace("connection", "")


def test_a_short_password_leaves_other_words_as_they_are():
    assert without_passwords("a bad a/b", "http://me:a@host") == "*** bad ***/b"
