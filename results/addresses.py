"""Addresses of servers and databases without the passwords in them, for everything that is shown or kept."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_SECRET_WORDS = r"(?:\w*passw(?:or)?d|pwd|\w*token|\w*secret|\w*api_?key)"
_ASSIGNED = re.compile(rf"(?i)(\b{_SECRET_WORDS}=)([^&#\s]+)")
_HIDDEN = "***"
_LEAST_PIECE = 3
"""Letters of a part of a password that are worth hiding alone."""


def shown_address(address: str) -> str:
    """An address as it may be shown: `postgresql://me@host/db` for `postgresql://me:secret@host/db`.

    A name without password is hidden in a web address, where it may be a token. What lacks `://` is read as
    if it had lost it. In doubt more is hidden: before an `@` in a path, too.
    """
    before, user, _, after = _parts(address)
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", f"{before}{user}{after}")


def without_passwords(text: str, address: str) -> str:
    """A text, such as a library's error about an address, without the address's passwords in any spelling."""
    text = text.replace(address, shown_address(address))
    _, _, password, _ = _parts(address)
    for secret in (password, *(value for _, value in _ASSIGNED.findall(address))):
        for spelling in sorted(_spellings(secret), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", _HIDDEN, text)
    return _ASSIGNED.sub(rf"\1{_HIDDEN}", text)


def _parts(address: str) -> tuple[str, str, str, str]:
    """What stands before the user, the user, the password, and what stands behind, from the `@` on.

    A password may hold any letter unescaped, `@` and `/` included.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    names, at, host = rest.rpartition("@")
    if not at or "sqlite" in scheme:
        return f"{scheme}{separator}{rest}", "", "", ""
    user, colon, password = names.partition(":")
    if not colon and scheme.endswith(("http", "https")):
        return f"{scheme}{separator}", _HIDDEN, user, f"@{host}"
    return f"{scheme}{separator}", user, password, f"@{host}"


def _spellings(secret: str) -> set[str]:
    """A secret as it is, in the pieces that an address falls into at it, and escaped as libraries do."""
    pieces = {piece for piece in re.split("[/@:?#]", secret) if len(piece) >= _LEAST_PIECE}
    plain = {secret, *pieces}
    plain |= {read(each) for each in plain for read in (unquote, unquote_plus)}
    escaped = {escape(each, safe="") for each in plain for escape in (quote, quote_plus)}
    return {each for each in {*plain, *escaped, *(repr(each)[1:-1] for each in plain)} if each}
