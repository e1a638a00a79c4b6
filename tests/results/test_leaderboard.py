"""Rows, drops, ranks, tests and published numbers of the leaderboard, against hand-worked tables."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from results.leaderboard import columns, leaderboard
from results.published import PublishedNames
from results.record import Record
from results.renderers import render
from results.statistics import pack_outcomes, paired_bootstrap
from tests.results.fakes import detection, failed, record

NAMES = PublishedNames(
    methods={("psaq_vit", "psaq_ptq"): "PSAQ-ViT", ("maskaq", "lsq_qat"): "MaskAQ"},
    backbones={"deit_tiny": "DeiT-T", "deit_small": "DeiT-S", "maskrcnn_swin_tiny": "Mask R-CNN Swin-T"},
)


def frame_of(records: list[Record], **options) -> pd.DataFrame:
    return leaderboard(records, **options).frame()


def rows_of(records: list[Record], **options) -> list[dict]:
    return frame_of(records, **options).to_dict("records")


def row_of(records: list[Record], method: str, **options) -> dict:
    (row,) = [row for row in rows_of(records, **options) if row["method"] == method]
    return row


def test_seeds_are_averaged():
    records = [record(seed=0, right="1110000000"), record(seed=1, right="1111100000")]
    row = row_of(records, "psaq_vit")
    assert (row["mean"], row["seeds"], row["images"], row["status"]) == (40.0, 2, 10, "ok")
    assert row["std"] == pytest.approx(math.sqrt(200))


def test_one_seed_has_an_interval_but_no_deviation():
    row = row_of([record(right="1111100000")], "psaq_vit")
    interval = stats.binomtest(5, 10).proportion_ci(method="wilson")
    assert math.isnan(row["std"])
    assert (row["low"], row["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_drop_is_measured_from_full_precision_of_the_same_weights_and_images():
    fp32 = record("fp32", "1111111110")
    others = [
        record("fp32", "1111111111", weights_sha256="other"),
        record("fp32", "1111111111", samples_digest="other"),
        record("fp32", "1111111111", backbone="deit_small"),
    ]
    quantized = record(right="1110000000")
    assert row_of([fp32, quantized], "psaq_vit")["drop"] == 60.0
    assert math.isnan(row_of([*others, quantized], "psaq_vit")["drop"])


def test_costs_and_oracle_are_averaged():
    records = [
        record(
            seed=seed, cost={"synthesis_seconds": 10.0 + seed}, metrics={"top1": 30.0, "oracle_top1": 31.0}
        )
        for seed in (0, 2)
    ]
    row = row_of(records, "psaq_vit")
    assert (row["synthesis_seconds"], row["oracle"]) == (11.0, 31.0)
    assert math.isnan(row["peak_memory_mb"])


CPU, GPU = "cpu (x86_64)", "NVIDIA H100"


def timed(seed: int, synthesis: tuple[float, str], quantization: tuple[float, str]) -> Record:
    cost = {"synthesis_seconds": synthesis[0], "quantization_seconds": quantization[0]}
    devices = {"synthesis_seconds": synthesis[1], "quantization_seconds": quantization[1]}
    return record(seed=seed, cost=cost, cost_devices=devices)


def test_costs_of_different_devices_are_never_averaged_nor_shown_as_a_sum():
    alike = row_of([timed(0, (10, GPU), (2, GPU)), timed(1, (20, GPU), (4, GPU))], "psaq_vit")
    assert (alike["synthesis_seconds"], alike["quantization_seconds"]) == (15.0, 3.0)
    assert alike["cost_devices"] == GPU
    parts = row_of([timed(0, (10, CPU), (2, GPU))], "psaq_vit")
    assert (parts["synthesis_seconds"], parts["quantization_seconds"]) == (10.0, 2.0)
    assert parts["cost_devices"] == f"{CPU}, {GPU}"
    seeds = row_of([timed(0, (10, CPU), (2, GPU)), timed(1, (1, GPU), (4, GPU))], "psaq_vit")
    assert math.isnan(seeds["synthesis_seconds"])
    assert seeds["quantization_seconds"] == 3.0
    assert seeds["cost_devices"] == f"{GPU} + {CPU}, {GPU}"


def test_references_are_shown_and_never_ranked():
    rows = rows_of([record("fp32"), record("real_data"), record("maskaq"), record("psaq_vit")])
    assert [(row["method"], row["reference"]) for row in rows] == [
        ("fp32", True),
        ("real_data", True),
        ("maskaq", False),
        ("psaq_vit", False),
    ]
    assert frame_of([record("fp32"), record("real_data"), record("maskaq")])["rank"].tolist() == [
        pd.NA,
        pd.NA,
        1,
    ]


def test_the_best_row_is_compared_image_by_image_with_holms_correction():
    images = np.arange(100)
    best, second, third = images < 60, images < 50, (images < 40) | (images > 97)
    frame = frame_of([record(name, list(o)) for name, o in (("a", best), ("b", second), ("c", third))])
    p_second = stats.binomtest(0, 10).pvalue
    p_third = stats.binomtest(2, 22).pvalue
    assert frame["rank"].tolist() == [1, 2, 3]
    assert frame["p_vs_best"].tolist()[1:] == pytest.approx([max(p_second, 2 * p_third), 2 * p_third])
    assert math.isnan(frame["p_vs_best"][0])
    assert frame["p_test"].tolist() == ["", "mcnemar", "mcnemar"]


def test_several_seeds_are_compared_by_bootstrap():
    drawn = np.random.default_rng(0).random((4, 300))
    close = [record("a", list(drawn[i] < 0.52), seed=i) for i in (0, 1)]
    close += [record("b", list(drawn[2 + i] < 0.5), seed=i) for i in (0, 1)]
    clear = [record("c", list(drawn[i] < 0.1), seed=i) for i in (0, 1)]
    frame = frame_of(close + clear).set_index("method")
    assert set(frame["p_test"]) == {"", "bootstrap"}
    assert frame.loc["c", "p_vs_best"] < 0.001
    assert frame["p_vs_best"].drop("c").max() > 0.05


def test_equal_means_share_a_rank():
    frame = frame_of([record("a", "1100"), record("b", "0011"), record("c", "1000")])
    assert frame["rank"].tolist() == [1, 1, 3]


def test_rows_without_outcomes_are_ranked_without_a_test():
    frame = frame_of([record("a", "1100"), record("b", "1000", outcomes={})])
    assert frame["rank"].tolist() == [1, 2]
    assert frame["p_vs_best"].isna().all()


@pytest.mark.parametrize(
    "difference",
    [
        {"budget": "paper"},
        {"bits": "w8a8"},
        {"backbone": "deit_small"},
        {"task": "digits"},
        {"samples_digest": "other"},
        {"weights_sha256": "other"},
        {"track": "controlled"},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_what_is_not_comparable_is_ranked_apart(difference: dict):
    frame = frame_of([record("a", "1100"), record("b", "1000", **difference)])
    assert frame["rank"].tolist() == [1, 1]


def test_the_published_track_ranks_across_engines_and_the_controlled_one_within():
    pair = [{"engine": "psaq_ptq"}, {"engine": "lsq_qat", "protocol": {"softmax": "quantized"}}]
    for track, ranks in (("published", [1, 2]), ("controlled", [1, 1])):
        records = [
            record(f"m{i}", "1100" if i else "1000", track=track, **engine) for i, engine in enumerate(pair)
        ]
        assert sorted(frame_of(records)["rank"]) == ranks


def test_the_controlled_track_ranks_only_where_protocols_agree():
    records = [
        record(name, "1100", track="controlled", protocol={"calibration images": count})
        for name, count in (("a", 32), ("b", 128))
    ]
    frame = frame_of(records)
    assert frame["rank"].tolist() == [1, 1]
    assert frame["fingerprint"].nunique() == 2


def test_settings_variants_are_not_averaged():
    records = [
        record(right="1110000000"),
        record(
            right="1111000000", settings={"synthesizer": {"iterations": 20}, "engine": {"batch_size": 32}}
        ),
    ]
    rows = rows_of(records)
    assert [(row["mean"], row["variant"]) for row in rows] == [
        (40.0, "iterations=20"),
        (30.0, "base"),
    ]


def test_a_variant_names_the_part_where_both_have_the_field():
    records = [
        record(settings={"synthesizer": {"batch_size": size}, "engine": {"batch_size": size}})
        for size in (16, 32)
    ]
    labels = {row["variant"] for row in rows_of(records)}
    assert labels == {"base", "synthesizer.batch_size=32, engine.batch_size=32"}


@pytest.mark.parametrize(
    "facts", [{"protocol": {"x": 1}}, {"weights_sha256": "w2"}, {"samples_digest": "s2"}]
)
def test_other_conditions_are_not_averaged_and_say_so(facts: dict):
    rows = rows_of([record(seed=0), record(seed=1, **facts)])
    assert [row["seeds"] for row in rows] == [1, 1]
    assert all(row["variant"] for row in rows)


def test_a_failed_trial_is_a_row_that_says_why():
    row = row_of(
        [record(), failed("maskaq", reason="out of memory at batch 16", status="out_of_memory")], "maskaq"
    )
    assert (row["status"], row["reason"], row["seeds"]) == ("out_of_memory", "out of memory at batch 16", 0)
    assert math.isnan(row["mean"])
    assert row["fingerprint"] == ""


def test_a_trial_without_a_result_joins_the_row_whose_protocol_says_more():
    known = {"softmax": "not quantized"}
    records = [
        failed("maskaq", seed=0, status="missing", protocol=known, weights_sha256="weights"),
        record("maskaq", seed=1, protocol={**known, "calibration_images": 32}),
        record("maskaq", seed=2, protocol={"softmax": "quantized", "calibration_images": 32}),
    ]
    found = {row["fingerprint"]: row["seeds_planned"] for row in leaderboard(records).rows}
    assert found == {records[1].fingerprint: 2, records[2].fingerprint: 1}


def test_a_failed_seed_makes_a_partial_row():
    records = [failed("maskaq", seed=0), record("maskaq", seed=1), record("maskaq", seed=2)]
    row = row_of(records, "maskaq")
    assert (row["status"], row["seeds"], row["seeds_planned"]) == ("partial", 2, 3)
    assert row["reason"] == "2 of 3 seeds: the loss is not finite"


def test_different_failures_of_one_row_are_all_named():
    records = [
        failed(seed=0, reason="first"),
        failed(seed=1, reason="second"),
        failed(seed=2, reason="second"),
        failed(seed=3, status="missing", reason=""),
    ]
    row = row_of(records, "maskaq")
    assert (row["status"], row["reason"]) == ("failed", "first; second; missing")


def test_the_newest_record_of_a_seed_counts():
    older = record(right="1000000000", finished_at="2026-11-01T00:00:00Z")
    newer = record(right="1100000000", finished_at="2026-11-02T00:00:00Z")
    repaired = failed("psaq_vit", finished_at="2026-11-01T12:00:00Z")
    row = row_of([newer, repaired, older], "psaq_vit")
    assert (row["mean"], row["seeds"], row["status"]) == (20.0, 1, "ok")


def test_a_metric_that_is_not_a_number_is_not_ranked():
    frame = frame_of([record("a", metrics={"top1": math.nan}), record("b")])
    assert frame.set_index("method")["rank"].isna().to_dict() == {"a": True, "b": False}
    assert math.isnan(frame.set_index("method").loc["a", "mean"])


def test_an_unlabelled_task_ranks_by_agreement():
    rows = rows_of(
        [
            record(
                name, task="images", metric="agreement", metrics={"agreement": value, "kl": 0.1}, outcomes={}
            )
            for name, value in (("a", 40.0), ("b", 80.0))
        ],
        published=NAMES,
    )
    assert [(row["method"], row["mean"], row["metric"]) for row in rows] == [
        ("b", 80.0, "agreement"),
        ("a", 40.0, "agreement"),
    ]


def test_agreement_outcomes_are_compared_too():
    outcomes = [[True] * 20, [True] * 5 + [False] * 15]
    frame = frame_of(
        [
            record(
                name,
                task="images",
                metric="agreement",
                metrics={"agreement": 5.0 * sum(right)},
                images=20,
                outcomes={"agreement": pack_outcomes(right)},
            )
            for name, right in zip("ab", outcomes, strict=True)
        ]
    )
    assert frame["p_vs_best"].tolist()[1] == pytest.approx(2 * 0.5**15)


def test_scores_of_images_are_compared_by_bootstrap_even_with_one_seed():
    drawn = np.random.default_rng(0)
    good = drawn.random(200).astype(np.float16)
    poor = (good * drawn.random(200)).astype(np.float16)
    frame = frame_of([detection("a", list(good)), detection("b", list(poor))]).set_index("method")
    assert frame.loc["b", "p_test"] == "bootstrap"
    expected = paired_bootstrap(poor[None], good[None], generator=np.random.default_rng(0))
    assert frame.loc["b", "p_vs_best"] == expected.p_value < 0.01


def test_average_precisions_have_columns_and_no_interval_of_a_rate():
    row = row_of([detection(seed=s, image_ap=[0.5, s * 0.5]) for s in (0, 1)], "real_data")
    assert (row["mean"], row["ap"], row["ap50"], row["ap75"], row["mask_ap"]) == (
        37.5,
        37.5,
        57.5,
        38.75,
        33.5,
    )
    assert math.isnan(row["low"])
    assert math.isnan(row["ap_small"])
    assert math.isnan(row["kl"])
    assert math.isnan(row_of([record()], "psaq_vit")["ap"])


def test_a_published_number_of_coco_stands_beside_the_detector_it_belongs_to():
    names = PublishedNames({("real_data", "repq_ptq"): "RepQ-ViT"}, NAMES.backbones)
    row = row_of([detection()], "real_data", published=names)
    assert (row["published"], row["published_note"]) == (36.1, "REAL-data calibration")
    assert row_of([detection("fp32", bits="fp32")], "fp32", published=names)["published"] == 46.0
    assert math.isnan(row_of([detection(engine="psaq_ptq")], "real_data", published=names)["published"])
    assert math.isnan(row_of([detection(task="digits_scenes")], "real_data", published=names)["published"])


def test_a_published_number_stands_apart_with_its_source():
    row = row_of([record(bits="w4a8")], "psaq_vit", published=NAMES)
    assert (row["mean"], row["published"]) == (30.0, 65.57)
    assert row["published_source"].startswith("PSAQ-ViT README")
    assert {"value": 66.16, "source": row["published_others"][0]["source"]}.items() <= row[
        "published_others"
    ][0].items()


def test_a_published_number_belongs_to_the_engine_it_was_made_with():
    row = row_of([record("maskaq", engine="psaq_ptq")], "maskaq", published=NAMES)
    assert math.isnan(row["published"])
    row = row_of([record("maskaq", engine="lsq_qat")], "maskaq", published=NAMES)
    assert row["published"] == 53.10


@pytest.mark.parametrize(
    ("changes", "departure"),
    [
        ({}, ""),
        ({"budget": "fast"}, "budget fast"),
        ({"settings": {"synthesizer": {"iterations": 3}, "engine": {"batch_size": 32}}}, "iterations=3"),
        ({"settings": {"synthesizer": {"iterations": 300}}}, "batch_size=None"),
    ],
)
def test_a_published_number_stands_beside_the_papers_settings_alone(changes, departure):
    one = record(bits="w4a8", **{"budget": "paper", **changes})
    pair = ("psaq_vit", "psaq_ptq")
    names = dataclasses.replace(NAMES, settings={pair: record().settings})
    board = leaderboard([one], published=names)
    (row,) = board.rows
    assert row["published_withheld"] == departure
    assert (row["published"] is None) == bool(departure)
    assert (f"{departure} (psaq_vit + psaq_ptq)" in render(board, "md")) == bool(departure)


def test_a_published_number_belongs_to_the_whole_model():
    for scope, stands in (("whole", True), ("heads_8bit", False), ("backbone", False)):
        made = record(bits="w4a8", protocol={"engine": {"scope": scope}})
        row = row_of([made], "psaq_vit", published=NAMES)
        assert math.isnan(row["published"]) != stands


def test_full_precision_has_its_published_number():
    assert row_of([record("fp32")], "fp32", published=NAMES)["published"] == 72.21


def test_published_numbers_stay_out_unless_asked_for():
    row = row_of([record()], "psaq_vit")
    assert math.isnan(row["published"])
    assert row["published_others"] == ()


def test_columns_and_types_do_not_depend_on_the_records():
    for records in ([], [failed()], [record("fp32"), record(), failed()]):
        frame = frame_of(records)
        assert list(frame.columns) == list(columns())
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == columns()


def test_bits_are_ordered_from_high_to_low():
    records = [record(bits=bits) for bits in ("w4a4", "w8a8", "w4a8")] + [record("fp32")]
    assert frame_of(records)["bits"].tolist() == ["fp32", "w8a8", "w4a8", "w4a4"]


def test_notes_are_gathered_once():
    row = row_of([record(seed=s, notes=("a", "b") if s else ("a",)) for s in (0, 1)], "psaq_vit")
    assert row["notes"] == ("a", "b")


def test_importing_the_results_does_not_import_the_heavy_libraries():
    code = (
        "import sys, results.leaderboard, results.renderers, results.tracking; "
        "print(sorted({'pandas', 'mlflow', 'scipy', 'numpy', 'rich', 'torch'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
