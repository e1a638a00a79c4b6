"""Spread over seeds, intervals, and tests that compare two quantized models image by image.

Works on arrays of right and wrong, or of scores from 0 to 1; knows nothing about records or tables.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

SIGNIFICANT_BELOW = 0.05
"""A p-value below this tells two models apart."""
_BOOTSTRAP_CELLS = 4_000_000
"""Upper bound of resamples x patterns held at once (32 MB of int64)."""
_FEW_PATTERNS = 64
"""As many as right and wrong of three seeds on each side can form: up to here counts are drawn afresh."""
_SHARED_CELLS = 25_000_000
"""Upper bound of resamples x images whose draws comparisons share (100 MB of float32)."""


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of a few runs; `std` is None for a single one."""

    mean: float
    std: float | None


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    low: float
    high: float


class McNemar(NamedTuple):
    """Images that only one of two models gets right, and the two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


class BootstrapDifference(NamedTuple):
    """Mean of the first minus the second, as fractions, with its percentile interval and p-value."""

    difference: float
    interval: Interval
    p_value: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation over seeds; raises ValueError when there is no value."""
    if not values:
        raise ValueError("no values to average")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None)
    return Spread(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def wilson_interval(rate: float, images: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a rate (0 to 1) seen on `images` samples (Wilson 1927, uncorrected)."""
    from scipy.special import ndtri

    if images < 1 or not 0 <= rate <= 1:
        raise ValueError(f"a rate from 0 to 1 on at least one image is needed, not {rate} on {images}")
    z = float(ndtri(0.5 + confidence / 2))
    denominator = 1 + z * z / images
    centre = (rate + z * z / (2 * images)) / denominator
    half = z / denominator * math.sqrt(rate * (1 - rate) / images + z * z / (4 * images * images))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Exact two-sided McNemar test of two boolean vectors (n,) over the same images in the same order.

    The discordant images are a fair coin under the hypothesis of equal accuracy (McNemar 1947); the binomial
    tail is exact at any count. Raises ValueError when the lengths differ.
    """
    from scipy.special import bdtr

    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"outcomes of the same images are needed, not {first.shape} and {second.shape}")
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    tail = float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    *,
    generator: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> BootstrapDifference:
    """Difference of two means over images, resampling images (paired) and, on each side, seeds.

    `first` and `second` are boolean, or scores in [0, 1], (seeds, images); the images are the same and in the
    same order. With one seed on each side only images are resampled. The p-value is twice the smaller tail at
    0, with one added to both counts (Davison and Hinkley 1997, section 4.2). Percentiles are too narrow where
    only a handful of images differ; of right and wrong `mcnemar` is exact there. Raises ValueError when the
    image counts differ.

    Rows of many seeds on few images form too many patterns; all comparisons on as many images then resample
    the same images, and only seeds are drawn anew.
    """
    import numpy as np

    _refuse_other_images(first, second)
    images = first.shape[1]
    # Images with equal outcomes are interchangeable, so a resample is a draw of pattern counts: the cost
    # does not grow with the number of images.
    patterns, counts = np.unique(np.concatenate([first, second]).T, axis=0, return_counts=True)
    if len(patterns) > _FEW_PATTERNS and resamples * images <= _SHARED_CELLS:
        differences = _differences_on_shared_images(first, second, resamples, generator)
    else:
        differences = _differences(patterns.astype(float), counts, len(first), resamples, generator)
    edge = (1 - confidence) / 2
    low, high = np.quantile(differences, [edge, 1 - edge])
    smaller_tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return BootstrapDifference(
        difference=float(first.mean(dtype=float) - second.mean(dtype=float)),
        interval=Interval(float(low), float(high)),
        p_value=min(1.0, 2 * (int(smaller_tail) + 1) / (resamples + 1)),
    )


def _differences(
    patterns: np.ndarray, counts: np.ndarray, seeds: int, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Each resample's difference; `counts` images have each pattern, whose first `seeds` are the first's."""
    import numpy as np

    images, in_first, in_second = counts.sum(), patterns[:, :seeds], patterns[:, seeds:]
    chunk = max(1, _BOOTSTRAP_CELLS // len(patterns))
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.multinomial(images, counts / images, size=size) / images
        parts.append(
            ((drawn @ in_first) * _seed_weights(in_first.shape[1], size, generator)).sum(axis=1)
            - ((drawn @ in_second) * _seed_weights(in_second.shape[1], size, generator)).sum(axis=1)
        )
    return np.concatenate(parts)


def _differences_on_shared_images(
    first: np.ndarray, second: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Each resample's difference, on the same images for all comparisons; seeds come from the generator."""
    import numpy as np

    images, seeds = first.shape[1], (len(first), len(second))
    # One product over all seeds: reading the draws is what it costs. Of right and wrong every sum is a whole
    # number, so that equal rows stay equal.
    together = np.concatenate([first, second]).T.astype(np.float32)
    sums = (_counts_of_images(images, resamples) @ together).astype(float)
    resample = np.arange(resamples)[:, None]
    in_first = sums[resample, generator.integers(0, seeds[0], size=(resamples, seeds[0]))].sum(axis=1)
    in_second = sums[resample, generator.integers(seeds[0], sum(seeds), size=(resamples, seeds[1]))].sum(
        axis=1
    )
    difference: np.ndarray = (in_first * seeds[1] - in_second * seeds[0]) / (images * seeds[0] * seeds[1])
    return difference


def bootstrap_p_value(
    first: np.ndarray, second: np.ndarray, *, generator: np.random.Generator, resamples: int = 10_000
) -> float:
    """The p-value of `paired_bootstrap`; nothing is drawn where no resample could reach 0.

    Below a chance of 1e-12 that any of the resamples has a mean of the other sign the smaller tail is empty.
    """
    _refuse_other_images(first, second)
    pairs = (first[:, None, :].astype(float) - second[None, :, :].astype(float)).reshape(-1, first.shape[1])
    pairs = -pairs if pairs.mean() < 0 else pairs
    if pairs.mean(axis=1).min() > 0 and _log_chance_below_zero(pairs) < -math.log(resamples * 1e12):
        return 2 / (resamples + 1)
    return paired_bootstrap(first, second, generator=generator, resamples=resamples).p_value


def _log_chance_below_zero(pairs: np.ndarray) -> float:
    """Upper bound of the logarithm of the chance that one resample's mean is 0 or less.

    `pairs` (pairs of seeds, images) holds the differences, each pair's mean positive. Whatever seeds are
    drawn, an image's difference is an average over pairs. Of right and wrong Chernoff's bound is taken, with
    the factor that is best for some pair; of scores Bernstein's, with the least mean and largest variance.
    """
    import numpy as np

    images = pairs.shape[1]
    better, worse = (pairs == 1).mean(axis=1), (pairs == -1).mean(axis=1)
    equal = (pairs == 0).mean(axis=1)
    if not np.allclose(better + worse + equal, 1):
        least, variance = float(pairs.mean(axis=1).min()), float(pairs.var(axis=1).max())
        return float(-images * least**2 / (2 * variance + 4 / 3 * least))
    factors = np.sqrt(np.maximum(better, 1 / images) / np.maximum(worse, 1 / images**2))
    moments = np.outer(better, 1 / factors) + np.outer(worse, factors) + equal[:, None]
    return float(images * math.log(moments.max(axis=0).min()))


def _refuse_other_images(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"outcomes of the same images are needed, not {first.shape} and {second.shape}")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979) of a family of p-values, in the given order."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def pack_outcomes(outcomes: ArrayLike) -> str:
    """Base64 of the packed bits of a boolean vector (array or CPU tensor); eight images to a byte."""
    import numpy as np

    return base64.b64encode(np.packbits(np.asarray(outcomes, dtype=bool)).tobytes()).decode("ascii")


def unpack_outcomes(text: str, images: int) -> np.ndarray:
    """The boolean vector (images,) of a packed bitmap; raises ValueError when the length does not fit."""
    import numpy as np

    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != (images + 7) // 8:
        raise ValueError(f"a bitmap of {len(packed)} bytes does not hold the outcomes of {images} images")
    return np.unpackbits(packed, count=images).astype(bool)


def pack_scores(scores: ArrayLike) -> str:
    """Base64 of a vector of numbers from 0 to 1 (array or CPU tensor) as little-endian float16."""
    import numpy as np

    return base64.b64encode(np.asarray(scores, dtype="<f2").tobytes()).decode("ascii")


def unpack_scores(text: str, images: int) -> np.ndarray:
    """The vector (images,) float64 of packed scores; raises ValueError when the length does not fit."""
    import numpy as np

    packed = base64.b64decode(text, validate=True)
    if len(packed) != 2 * images:
        raise ValueError(f"{len(packed)} bytes do not hold the scores of {images} images")
    return np.frombuffer(packed, dtype="<f2").astype(float)


@functools.lru_cache(maxsize=1)
def _counts_of_images(images: int, resamples: int) -> np.ndarray:
    """How often each image was drawn in each resample: (resamples, images), whole numbers in float32."""
    import numpy as np

    chosen = np.random.default_rng(images).integers(images, size=(resamples, images))
    chosen += images * np.arange(resamples)[:, None]
    counts = np.bincount(chosen.ravel(), minlength=resamples * images)
    return counts.reshape(resamples, images).astype(np.float32)


def _seed_weights(seeds: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """How often each seed was drawn, as a share: (size, seeds)."""
    import numpy as np

    return generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
