"""`harness analyze` through the command line, on the embedded digits."""

from __future__ import annotations

import csv
import functools
import io
import json

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UsageError
from harness.planning import session
from tests.harness.planted_methods import __file__ as PLANTED

SETS = ["real_data", "gaussian_noise", "psaq_vit", "planted_blank"]


def analyze(*arguments: str):
    """The command in this process; a UsageError comes out as it is."""
    result = CliRunner().invoke(app, ["analyze", "--device", "cpu", "--cpus-per-trial", "1", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An analysis in one of the formats, made once each; all share a store, and the folder of plots."""
    folder = tmp_path_factory.mktemp("analysis")

    @functools.cache
    def go(*more: str):
        return analyze(
            "--backbone", "digits_vit", "--methods", "psaq_vit,planted_blank", "--budget", "smoke",
            "--bits", "w3a3", "--plugin", PLANTED, "--store", str(folder / "store"),
            "--output", str(folder / "plots"), *more,
        )  # fmt: skip

    go.folder = folder
    return go


def test_json_holds_every_set_and_every_measure(run):
    result = run("--format", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["settings"] == {
        "backbone": "digits_vit", "bits": "w3a3", "engine": "lsq_qat", "budget": "smoke", "seed": 0,
        "measured_images": 2,
    }  # fmt: skip
    assert list(found["curves"]) == SETS
    for curve in found["curves"].values():
        assert len(curve) == 64
        assert curve == sorted(curve)
        assert curve[-1] == pytest.approx(1)
        assert curve[5] > 6 / 64  # more than equal attention
    assert set(found["range_ratios"]["real_data"].values()) == {1.0}
    heads = found["mass_of_top_tenth_by_layer_and_head"]
    assert list(heads) == SETS
    for layers in heads.values():
        assert {len(layer) for layer in layers} == {4}
        assert all(found["mass_of_top_tenth_uniform"] < mass < 1 for layer in layers for mass in layer)
    assert found["mass_of_top_tenth_uniform"] == 6 / 64
    assert set(found["gradient_shares"]) == {"psaq_vit"}
    assert set(found["gradient_shares"]["psaq_vit"]["shares"]) == {"patch_entropy", "one_hot", "variation"}
    assert [row["images"] for row in found["rows"]] == ["real_data", *(n for n in SETS[1:] for _ in "ab")]
    assert [row["measured_on"] for row in found["rows"]] == [
        "real images", *["own images", "real images"] * 3,
    ]  # fmt: skip
    for row in found["rows"]:
        assert 0 < row["attention_distance"] < 1
        assert row["kl_all"] < row["kl_bottom_10_percent"]
        assert row["teacher_agreement_all"] == 100
        for model in ("teacher_", ""):
            margin = row[f"{model}margin_over_random_25_percent"]
            agreements = [row[f"{model}agreement_{which}_25_percent"] for which in ("top", "random")]
            assert margin == pytest.approx(agreements[0] - agreements[1])
            assert row[f"{model}information_top_25_percent"] <= row["class_entropy"] + 1e-6


def test_few_images_are_warned_of_in_every_format(run):
    sentence = "measured on 2 images of each set, fewer than 64: planted_blank has no more (--set planted"
    for format in ("json", "csv"):
        assert f"warning: {sentence}" in run("--format", format).stderr
    assert json.loads(run("--format", "json").stdout)["warnings"][0].startswith(sentence)
    for format in ("md", "table"):
        shown = run("--format", format)
        assert f"warning: {sentence}" in shown.stdout
        assert "warning" not in shown.stderr


@pytest.mark.parametrize(("most", "expected"), [(64, []), (63, ["(--images)"])])
def test_only_fewer_images_than_needed_are_a_cause_for_a_warning(most, expected, tmp_path):
    result = analyze(
        "--backbone", "digits_vit", "--methods", "gaussian_noise", "--engine", "psaq_ptq", "--format", "json",
        "--set", "real_data.images=64", "--set", "gaussian_noise.images=64", "--images", str(most),
        "--store", str(tmp_path / "store"), "--output", str(tmp_path),
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert found["settings"]["measured_images"] == most
    assert [cause in warning for cause, warning in zip(expected, found["warnings"], strict=True)] == [
        True for _ in expected
    ]


def test_tables_fit_80_columns_and_have_a_uniform_row(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("harness.cli.terminal._PIPED_WIDTH", 80)
    shown = run.__wrapped__().stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    (uniform,) = [line.split() for line in shown.splitlines() if line.strip().startswith("uniform")]
    assert uniform == ["uniform", "9.4", "50.0", "9.4", "9.4", "9.4", "9.4"]


def test_the_second_time_nothing_is_made(run):
    run("--format", "json")
    again = run.__wrapped__("--format", "json")
    assert "synthesize" not in again.stderr
    assert "quantize" not in again.stderr


def test_plots_are_pictures(run):
    from PIL import Image

    run("--format", "json")
    plots = sorted((run.folder / "plots").iterdir())
    assert [plot.name for plot in plots] == [
        "dependence.png", "gradients.png", "heads.png", "ranges.png", "sparsity.png"
    ]  # fmt: skip
    for plot in plots:
        with Image.open(plot) as picture:
            assert len(picture.convert("L").getcolors()) > 10


def test_the_formats_tell_the_same(run):
    rows = json.loads(run("--format", "json").stdout)["rows"]
    written = list(csv.DictReader(io.StringIO(run("--format", "csv").stdout)))
    assert [row["images"] for row in written] == [row["images"] for row in rows]
    assert {row["measured_images"] for row in written} == {"2"}
    assert [float(row["kl_all"]) for row in written] == pytest.approx([row["kl_all"] for row in rows])
    for format in ("md", "table"):
        text = run("--format", format).stdout
        for row in rows:
            assert row["images"] in text
            assert f"{row['attention_distance']:.3f}" in text
            assert f"{row['agreement_top_25_percent']:.1f}" in text
            assert f"{row['margin_over_bottom_25_percent']:+.1f} ±" in text
            assert f"{100 * row['mass_of_top_tenth_last_layer']:.1f}" in text


def test_a_coupled_method_and_a_suite(tmp_path):
    suite = tmp_path / "coupled.yaml"
    suite.write_text(
        "task: digits\nbackbones: [digits_swin]\nbits: [w4a4]\nmethods: [maskaq]\nbudget: smoke\n"
        "overrides: {maskaq: {images: 3}}\n"
    )
    result = analyze(
        "--suite", str(suite), "--store", str(tmp_path / "store"), "--output", str(tmp_path),
        "--format", "json",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert list(found["curves"]) == ["real_data", "gaussian_noise", "maskaq"]
    assert (found["settings"]["backbone"], found["settings"]["measured_images"]) == ("digits_swin", 3)


def test_a_method_that_fails_is_named_and_the_others_are_measured(tmp_path):
    result = analyze(
        "--backbone", "digits_vit", "--methods", "planted_broken", "--plugin", PLANTED, "--budget", "smoke",
        "--store", str(tmp_path / "store"), "--output", str(tmp_path), "--format", "md",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "failed: planted_broken: RuntimeError: planted: the generator exploded" in result.stdout
    assert "| gaussian_noise |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give --backbone NAME or --suite NAME"),
        (["--backbone", "digits_vi"], "did you mean digits_vit"),
        (["--backbone", "digits_yolos"], "digits_yolos: an analysis compares answers of classifiers"),
        (["--backbone", "digits_vit,digits_swin"], "--backbone: an analysis looks at one of"),
        (["--backbone", "digits_vit", "--bits", "w3a3,w4a4"], "--bits: an analysis looks at one of"),
        (["--backbone", "digits_vit", "--bits", "w9a9"], "9-bit weights: 2 to 8 are supported"),
        (["--backbone", "digits_vit", "--methods", "mimq"], "did you mean mimiq"),
        (["--backbone", "digits_vit", "--engine", "lsq"], "did you mean lsq_qat"),
        (["--backbone", "digits_vit", "--budget", "tiny"], "one of paper, fast, smoke"),
        (["--backbone", "digits_vit", "--format", "html"], "one of table, md, csv, json"),
        (["--backbone", "digits_vit", "--output", __file__], "a file is in the place of the folder"),
        (["--suite", "imagenet_table1"], "--backbone: an analysis looks at one of"),
        (["--suite", "digits_w3"], "did you mean"),
    ],
)
def test_wrong_usage_is_named(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        analyze(*arguments)
    assert expected in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_notes_about_weights_are_said_as_a_run_says_them(run, monkeypatch):
    found = session.find_weight_files
    note = ("weights of digits_vit: something is taken",)
    monkeypatch.setattr(session, "find_weight_files", lambda *a, **k: found(*a, **k)._replace(notes=note))
    done = run.__wrapped__("--format", "csv")  # not what an earlier test kept
    assert f"note: {note[0]}" in done.stderr
    assert "note:" not in done.stdout
