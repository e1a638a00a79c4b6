"""Engine E4, the block-wise reconstruction of SARDFQ: RepQ-ViT's quantizers, then weights block by block.

The quantizers, all ranges included, are those of engine E3 and stay fixed. Then,
front to back, the weights of a transformer block's linear layers are moved by Adam so that the quantized
block's output comes near the full-precision one: ||X - X_quantized||_2 over the whole calibration batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from backbones.base import Backbone
from methods.base import Evidence, Progress, TrainingFailed
from methods.bits import Bits
from methods.engines.repq_ptq import RepqPtq, RepqPtqConfig
from methods.settings import setting

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class BlockReconstructionConfig(RepqPtqConfig):
    """Iterations and learning rate as noted of the paper; the rest is engine E3's."""

    iterations: int = setting(100, "Optimizer steps per block.", low=1, high=20000, fast=20, smoke=2)
    learning_rate: float = setting(
        4e-5, "Adam's learning rate at the start of its cosine.", low=1e-6, high=1e-2, log=True
    )


class BlockReconstruction(RepqPtq):
    """Calibrates as E3, then fits each block's weights to the full-precision block's output."""

    Config = BlockReconstructionConfig
    config: BlockReconstructionConfig
    families = frozenset({"vit", "swin"})
    title = "Block-wise reconstruction (post-training)"
    citation = "SARDFQ, ICCV 2025, arXiv 2412.16553; after I&S-ViT, arXiv 2311.10126"
    sources: ClassVar[Mapping[str, Evidence]] = {
        **RepqPtq.sources,
        "reconstruction of weights block by block": "note",
        "iterations and learning rate": "note",
        "input and target of a block": "ours",
    }
    deviations: ClassVar[tuple[str, ...]] = (
        "the reconstruction follows what others note of it: the code of SARDFQ and I&S-ViT could not be read",
        *RepqPtq.deviations,
    )
    not_established: ClassVar[tuple[str, ...]] = (
        "the input of a block: what the quantized blocks before it give",
        "the target of a block: the full-precision model alone",
        "whether biases, LayerNorm and Swin's patch merging are trained: they are not touched",
    )

    def protocol(self, bits: Bits) -> dict[str, Any]:
        """What is quantized and how."""
        return super().protocol(bits) | {
            "engine": "block_reconstruction",
            "training": "weights of each transformer block, on its output, with fixed ranges; first and last "
            "layer are not trained",
        }

    def _fit(self, student: nn.Module, teacher: Backbone, images: Tensor, progress: Progress) -> None:
        import torch

        from backbones.families.explicit import ExplicitBlock, ExplicitSwinBlock

        super()._fit(student, teacher, images, progress)
        units = _units(student)
        blocks = sum(isinstance(unit, ExplicitBlock | ExplicitSwinBlock) for unit in units)
        done = 0
        with torch.no_grad():
            x, target = (_input_of(_units(m)[0], m, images) for m in (student, teacher.model))
        for unit, reference in zip(units, _units(teacher.model), strict=True):
            with torch.no_grad():
                target = reference(target)
            if isinstance(unit, ExplicitBlock | ExplicitSwinBlock):
                error = self._reconstruct(unit, x, target, done)
                done += 1
                progress(done, blocks, {"reconstruction": error})
            with torch.no_grad():
                x = unit(x)

    def _reconstruct(self, block: nn.Module, x: Tensor, target: Tensor, index: int) -> float:
        """Move the block's weights in place; the last error.

        Raises TrainingFailed naming the block when an error is not finite.
        """
        import torch

        from methods.quantization.layers import QuantizedLinear

        weights = [m.weight for m in block.modules() if isinstance(m, QuantizedLinear)]
        for weight in weights:
            weight.requires_grad_(True)
        optimizer = torch.optim.Adam(weights, lr=self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.config.iterations)
        errors = []
        for _ in range(self.config.iterations):
            optimizer.zero_grad()
            error = torch.linalg.vector_norm(block(x) - target)
            torch.autograd.backward(error)
            optimizer.step()
            schedule.step()
            errors.append(error.detach())
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None
        history: list[float] = torch.stack(errors).tolist()
        if not all(torch.stack([weight.isfinite().all() for weight in weights]).tolist()):
            raise TrainingFailed(
                f"reconstruction of block {index} left weights that are not finite (errors {history[0]:.4g} "
                f"to {history[-1]:.4g}): lower learning_rate"
            )
        return history[-1]


def _units(model: nn.Module) -> list[nn.Module]:
    """Blocks, and Swin's patch mergings between them, in forward order: each maps one tensor to one."""
    stages: Any = getattr(model, "layers", None)
    if stages is None:
        blocks: Any = model.blocks
        return list(blocks)
    return [unit for stage in stages for unit in (stage.downsample, *stage.blocks)]


def _input_of(unit: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    """What `unit` receives when `model` sees `images`."""
    seen: list[Tensor] = []
    handle = unit.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return seen[0]
