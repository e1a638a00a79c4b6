"""What a GPU computes with is set for a stage alone, and read back for its record."""

from __future__ import annotations

import warnings

import pytest
import torch

from harness.stages.cost import environment
from harness.stages.precision import EXACT, FAST, computing, precision_of, unrepeatable


def settings() -> tuple[object, ...]:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )


@pytest.mark.parametrize(
    ("precision", "expected"),
    [(EXACT, ("ieee", "ieee", False, True, True, False)), (FAST, ("tf32", "tf32", True, False, False, True))],
)
def test_a_gpus_settings_hold_within_the_block_whatever_was_set_before(precision, expected):
    before = settings()
    with computing(precision, "cuda"):
        assert settings() == expected
        assert precision_of("cuda") == precision
    assert settings() == before
    with pytest.raises(ValueError, match="planted"):
        _fail_within(precision)
    assert settings() == before
    with computing(FAST, "cuda"), computing(EXACT, "cuda"):
        assert settings()[0] == "ieee"


def _fail_within(precision: str) -> None:
    with computing(precision, "cuda"):
        raise ValueError("planted")


def test_a_cpu_is_left_as_it_is_and_always_exact():
    before = settings()
    with computing(EXACT, "cpu"):
        assert settings() == before
        assert precision_of("cpu") == EXACT
    with pytest.raises(ValueError, match="precision fast is for GPUs"), computing(FAST, "cpu"):
        pass


def test_operations_that_do_not_repeat_are_named_and_other_warnings_shown():
    said = "roi_align_backward_kernel does not have a deterministic implementation, but you set "
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with computing(EXACT, "cuda"):
            warnings.warn(said + "'torch.use_deterministic_algorithms(True, warn_only=True)'", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
            assert unrepeatable() == ("roi_align_backward_kernel",)
            found = environment("cpu", 1)
    assert [str(one.message) for one in shown] == ["something else"]
    assert found.as_text()["unrepeatable"] == "roi_align_backward_kernel"
    with computing(EXACT, "cuda"):
        assert unrepeatable() == ()


def test_an_operation_that_repeats_itself_on_other_types_is_named_too():
    said = "_histc_cuda with floating point input does not have a deterministic implementation, but you set"
    with computing(EXACT, "cuda"):  # a GPU's words, which no CPU says
        warnings.warn(said, stacklevel=1)
        assert unrepeatable() == ("_histc_cuda",)


def test_torchs_own_warning_is_understood():
    with computing(EXACT, "cuda"):  # put_ has no algorithm that repeats itself, on whatever device
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))
        assert unrepeatable() == ("put_",)
