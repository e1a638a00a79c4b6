"""`make bench`: the harness's speed as ratios and differences taken in one run, on this machine; and what the
driver costs as a suite grows, in CPU time (`--largest` adds 100,000 stages).

Each synthesis iteration is timed in turn with a plain forward + backward to the image of the same model
(fused attention), and the median of the pairwise ratios is shown with its range. With
HARNESS_WEIGHTS_DEIT_TINY=FILE the trained DeiT-T is used; its similarities spread like a real model's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import scale
from tests.benchmarks.overhead import cached_suite_seconds, no_op_trials_seconds
from tests.benchmarks.synthesis import maskaq_iteration, plain_pass, psaq_iteration


def ratios(numerator: Callable[[], object], denominator: Callable[[], object], pairs: int) -> list[float]:
    """Pairwise ratios of the two calls' seconds, in turn, after one warm-up each."""
    numerator()
    denominator()
    return [_seconds(numerator) / _seconds(denominator) for _ in range(pairs)]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7, help="timed pairs per ratio")
    parser.add_argument(
        "--only", choices=["psaq", "maskaq", "overhead", "cached", "scale"], help="one of them"
    )
    parser.add_argument("--largest", action="store_true", help="also 100,000 stages")
    options = parser.parse_args()
    table = Table(title="make bench", title_justify="left")
    for column in ("what", "median", "range", "aim"):
        table.add_column(column)

    def add(name: str, what: str, measure: Callable[[], list[float]], unit: str, aim: str) -> None:
        if options.only in (None, name):
            values = measure()
            middle = f"{statistics.median(values):.2f}{unit}"
            table.add_row(what, middle, f"{min(values):.2f} to {max(values):.2f}{unit}", aim)

    add(
        "psaq",
        "PSAQ-ViT iteration / plain pass (DeiT-T, batch 32)",
        lambda: ratios(psaq_iteration(batch=32), plain_pass(batch=32), options.pairs),
        " x",
        "at most 1.5 x (original 28 x)",
    )
    add(
        "maskaq",
        "MaskAQ iteration / two plain passes (DeiT-T, batch 16, W4A4)",
        lambda: [r / 2 for r in ratios(maskaq_iteration(batch=16), plain_pass(batch=16), options.pairs)],
        " x",
        "at most 1.8 x (original 3.6 x)",
    )
    with tempfile.TemporaryDirectory() as folder:
        add(
            "overhead",
            "200 no-op trials through Ray, beyond its start",
            lambda: [no_op_trials_seconds(Path(folder) / "trials", trials=200)],
            " s",
            "at most 15 s",
        )
        add(
            "cached",
            "a fully cached suite, after imports",
            lambda: cached_suite_seconds(Path(folder) / "cached", repeats=3),
            " s",
            "at most 3 s",
        )
    if table.row_count:
        Console().print(table)
    if options.only in (None, "scale"):
        Console().print(scale.table((1_000, 10_000, *([100_000] if options.largest else []))))


if __name__ == "__main__":
    main()
