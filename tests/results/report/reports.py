"""Reports of made-up records, for the tests of the page and of its files."""

from __future__ import annotations

from collections.abc import Iterable

from results.leaderboard import Board, leaderboard
from results.published import PublishedNames
from results.record import Record
from results.report.report import Curve, Extras, Gallery, Picture, Report, Teacher, report_of
from tests.results.fakes import failed, record

NAMES = PublishedNames(
    methods={("psaq_vit", "psaq_ptq"): "PSAQ-ViT", ("maskaq", "lsq_qat"): "MaskAQ"},
    backbones={"deit_tiny": "DeiT-T"},
    settings={("maskaq", "lsq_qat"): {"engine": {"batch_size": 32}}},
)
PLANTED = '<script>window.planted = 1</script><img src=x onerror="window.planted = 1">'
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def made(records: Iterable[Record], extras: Extras | None = None) -> tuple[Report, Board]:
    """The report of some records of a suite `small`, and its board."""
    records = list(records)
    board = leaderboard(records, published=NAMES)
    report = report_of(
        board,
        NAMES,
        suites={one.trial: ["small"] for one in records},
        commands=[f"harness run --suite small --methods {row.first.method}" for row in board.sources],
        extras=extras,
    )
    return report, board


def small() -> tuple[Report, Board]:
    """Two bit-widths, four methods, a failure, and what is planted in names and notes."""
    right = "1111111111" * 6 + "1110000000" * 4
    records = [record("fp32", "1" * 90 + "0" * 10, cost={})]
    for bits, less in (("w4a4", 20), ("w8a8", 0)):
        for place, method in enumerate(("maskaq", "psaq_vit", "mimiq")):
            outcome = right[less + 7 * place :] + "0" * (less + 7 * place)
            cost = {"synthesis_seconds": 10.0 * (place + 1), "quantization_seconds": 2.0}
            engine = "lsq_qat" if method == "maskaq" else "psaq_ptq"
            records.append(record(method, outcome, bits=bits, engine=engine, cost=cost))
    records.append(record(f"evil{PLANTED}", right, notes=(f"note {PLANTED}", "</script>")))
    records.append(failed("smi", reason=f"why {PLANTED}"))
    teacher = Teacher([place % 4 for place in range(100)], [place / 100 for place in range(100)])
    extras = Extras(
        galleries=(Gallery("maskaq, seed 0", (Picture(PIXEL, f"class 3 {PLANTED}"),)),),
        curves=(
            Curve("maskaq", (1.0, 50.0, 100.0), {"one_hot": [1.0, 0.5, 0.4], "entropy": [0.1, 0.2, 0.3]}),
        ),
        teachers={("deit_tiny", "digest"): teacher},
        class_names={"imagenet": ("tench", "shark", "ray", f"hen {PLANTED}")},
    )
    return made(records, extras)
