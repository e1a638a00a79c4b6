"""Numbers as people read them, rounded in one way everywhere; what is small is never shown as nothing."""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"
_DAY = 24 * 3600


def fixed(value: float | None, digits: int) -> str:
    """So many decimals; `<0.01` for what is more than 0 and would read 0.00, and never `-0.00`."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{value:.{digits}f}"
    if value and not float(text):
        return f"<{10**-digits:.{digits}f}" if value > 0 else text.removeprefix("-")
    return text


def p_value(p: float | None) -> str:
    """Three decimals; `<.001` below them."""
    if p is None:
        return MISSING
    return "<.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Few figures before one unit: <0.1s, 0.4s, 45s, 2.5m, 12m, 3.5h, 3.0d; 0s for no work at all."""
    if seconds is None:
        return MISSING
    if 0 < seconds < 0.95:
        return "<0.1s" if seconds < 0.05 else f"{seconds:.1f}s"
    if seconds < 99.5:
        return f"{seconds:.0f}s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.{int(seconds < 9.95 * 60)}f}m"
    return f"{seconds / 3600:.1f}h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f}d"


def clock(seconds: float) -> str:
    """0:07, 12:34, 3:02:07, 2d 3:02:07."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def setting(value: Any) -> str:
    """A setting or a loss: four figures of a float, with an exponent only below 0.0001 and from a million."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
