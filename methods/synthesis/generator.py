"""The class-conditional image generator of GDFQ, and Qimera's that superposes classes.

    latent -> linear -> CBN -> x2 -> conv 128 -> CBN -> LeakyReLU -> x2 -> conv 64 -> CBN -> LeakyReLU
           -> conv -> tanh -> batch normalization

GDFQ (Xu et al., ECCV 2020, released code, ImageNet form); Qimera (Choi et al., NeurIPS 2021, released code).
Every normalization uses the statistics of the batch at hand, so images depend on the batch they are made in.
Knows nothing about teachers, losses or training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

_WIDTH, _NARROW = 128, 64
_SMALL_EPS, _LARGE_EPS = 1e-5, 0.8
"""The released code stabilises the normalizations after convolutions with 0.8."""


@dataclass(frozen=True)
class Mixture:
    """The classes that each image of a batch is made for."""

    labels: Tensor
    """(B, K) int64 class indices; an index may come more than once."""
    weights: Tensor
    """(B, K) shares of the K classes, each row with sum 1."""
    targets: Tensor
    """(B, classes) the shares as a distribution over all classes."""

    @classmethod
    def of(cls, labels: Tensor, weights: Tensor, classes: int) -> Mixture:
        """From labels and weights, both (B, K)."""
        targets = weights.new_zeros(len(labels), classes).scatter_add_(1, labels, weights)
        return cls(labels, weights, targets)

    @property
    def single_labels(self) -> Tensor:
        """(B,) class indices; -1 where an image is made for several classes."""
        return self.labels[:, 0] if self.labels.shape[1] == 1 else torch.full_like(self.labels[:, 0], -1)


def single_classes(size: int, classes: int, *, generator: Generator, device: torch.device) -> Mixture:
    """One uniformly drawn class per image."""
    labels = torch.randint(classes, (size, 1), generator=generator).to(device)
    return Mixture.of(labels, torch.ones(size, 1, device=device), classes)


def superposed_classes(
    size: int, classes: int, count: int, *, generator: Generator, device: torch.device
) -> Mixture:
    """`count` uniformly drawn classes per image, shares softmax(N(0, 1)) (Qimera code)."""
    labels = torch.randint(classes, (size, count), generator=generator).to(device)
    weights = torch.randn(size, count, generator=generator).softmax(dim=1).to(device)
    return Mixture.of(labels, weights, classes)


class ConditionalBatchNorm(nn.Module):
    """Normalizes (B, C, H, W) with the batch's statistics, then applies gain and bias of the image's class.

    For a mixture, gain and bias are the classes' own weighed by their shares; `divide_mixed` divides them by
    the number of classes once more, as Qimera's code does.
    """

    def __init__(self, classes: int, channels: int, *, eps: float, divide_mixed: bool = False) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(classes, channels))
        self.biases = nn.Parameter(torch.zeros(classes, channels))
        self.eps = eps
        self.divide_mixed = divide_mixed

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        shares = mixture.targets
        if self.divide_mixed:
            shares = shares / mixture.labels.shape[1]
        gain, bias = (shares @ table for table in (self.gains, self.biases))
        normalized = F.batch_norm(x, None, None, training=True, eps=self.eps)
        return torch.addcmul(bias[..., None, None], gain[..., None, None], normalized)


class ConditionalGenerator(nn.Module):
    """Images of wanted classes from noise: GDFQ's network for any image size and number of channels.

    The network starts at a quarter of the image's side; a side that is no multiple of 4 is cropped from the
    next one. Every channel of a batch has mean 0 and variance 1: images are in the model's normalized space,
    not clamped to the pixel range. At 224 pixels the first layer alone has 40 million weights.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        latent_size: int,
        generator: Generator,
        divide_mixed: bool = False,
    ) -> None:
        """`image_shape` is (channels, height, width); `generator` draws the first weights, on the CPU."""
        super().__init__()
        channels, self.height, self.width = image_shape
        self.latent_size = latent_size
        self.base = (_WIDTH, math.ceil(self.height / 4), math.ceil(self.width / 4))
        self.project = fresh_linear(latent_size, math.prod(self.base), generator=generator)
        self.wide = _fresh_conv(_WIDTH, _WIDTH, generator)
        self.narrow = _fresh_conv(_WIDTH, _NARROW, generator)
        self.to_pixels = _fresh_conv(_NARROW, channels, generator)
        self.norms = nn.ModuleList(
            ConditionalBatchNorm(classes, features, eps=eps, divide_mixed=divide_mixed)
            for features, eps in ((_WIDTH, _SMALL_EPS), (_WIDTH, _LARGE_EPS), (_NARROW, _LARGE_EPS))
        )

    def latent(self, mixture: Mixture, *, generator: Generator) -> Tensor:
        """(B, latent_size): here N(0, 1), whatever the classes."""
        noise = torch.randn(len(mixture.labels), self.latent_size, generator=generator)
        return noise.to(mixture.labels.device)

    def forward(self, mixture: Mixture, *, generator: Generator) -> Tensor:
        """Images (B, C, H, W) of these classes from fresh noise."""
        x = self.project(self.latent(mixture, generator=generator)).unflatten(1, self.base)
        x = F.interpolate(self.norms[0](x, mixture), scale_factor=2)
        x = F.leaky_relu(self.norms[1](self.wide(x), mixture), 0.2)
        x = F.interpolate(x, scale_factor=2)
        x = F.leaky_relu(self.norms[2](self.narrow(x), mixture), 0.2)
        pixels = self.to_pixels(x)[..., : self.height, : self.width].tanh()
        return F.batch_norm(pixels, None, None, training=True, eps=_SMALL_EPS)


class SuperposingGenerator(ConditionalGenerator):
    """Qimera's: the latent is a weighted sum of disturbed, normalized class vectors, so classes can mix."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        class_vectors: Tensor,
        *,
        latent_size: int,
        generator: Generator,
        divide_mixed: bool,
    ) -> None:
        """`class_vectors`: (classes, D) where the trained vectors start."""
        classes, width = class_vectors.shape
        super().__init__(
            image_shape, classes, latent_size=latent_size, generator=generator, divide_mixed=divide_mixed
        )
        self.class_vectors = nn.Parameter(class_vectors.detach().cpu().clone())
        self.reduce = fresh_linear(width, latent_size, generator=generator)

    def latent(self, mixture: Mixture, *, generator: Generator) -> Tensor:
        """(B, latent_size): reduce(sum over k of weight_k * normalized(vector of class k + N(0, 1)))."""
        vectors = F.embedding(mixture.labels, self.class_vectors)
        noise = torch.randn(vectors.shape, generator=generator).to(vectors.device)
        disturbed = F.layer_norm(vectors + noise, vectors.shape[-1:])
        reduced: Tensor = self.reduce((mixture.weights[..., None] * disturbed).sum(dim=1))
        return reduced


def fresh_linear(inputs: int, outputs: int, *, generator: Generator) -> nn.Linear:
    """A linear layer with PyTorch's usual start, U(-1, 1) / sqrt(inputs), drawn from `generator`."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    _draw(layer, inputs, generator)
    return layer


def _fresh_conv(inputs: int, outputs: int, generator: Generator) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, device="meta").to_empty(device="cpu")
    _draw(layer, inputs * 9, generator)
    return layer


@torch.no_grad()
def _draw(layer: nn.Linear | nn.Conv2d, fan_in: int, generator: Generator) -> None:
    bound = 1 / math.sqrt(fan_in)
    for parameter in layer.parameters():
        parameter.uniform_(-bound, bound, generator=generator)
