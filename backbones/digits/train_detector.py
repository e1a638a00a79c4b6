"""Trains the shipped tiny detector: `python -m backbones.digits.train_detector --output FILE`.

Endless scenes, the set loss after every block, and a dense loss on the patches that training alone knows:
without it the detection tokens find the digits late. AdamW with a warm-up and a cosine. CPU kernels differ
between machines, so a run regenerates weights of the same quality, not the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

from backbones.base import BackboneSpec
from backbones.digits.images import Digits, load_digits_split
from backbones.digits.scenes import (
    CLASSES,
    SIDE,
    Scenes,
    coco_annotations,
    draw_scenes,
    load_scenes_split,
    scene_targets,
)
from backbones.digits.train_classifiers import augmented
from backbones.loading import build_model
from backbones.preprocessing.pixels import normalized
from backbones.specs import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from timm.layers.attention import Attention
    from torch import Generator, Tensor, nn

    from backbones.families.explicit import ExplicitBlock
    from backbones.families.yolos_model import ExplicitYolos

_NAME = "digits_yolos"
_BATCH = 16
_BLOCK = 1024
"""Scenes that are drawn at once, from digits that are varied anew."""
_PEAK_RATE = 1e-3
_WARM_UP_SHARE = 0.03
_WEIGHT_DECAY = 0.02
_MOST_GRADIENT = 10.0
_NO_OBJECT_WEIGHT = 0.4
"""More than DETR's 0.1, as 16 queries share 2 to 5 digits."""
_CLASS_WEIGHT = 3.0
"""More than DETR's 1: boxes are learned soon, and the digits' classes last."""
_DENSE_NO_OBJECT_WEIGHT = 0.1
_FIRST_SUPERVISED_BLOCK = 2
_CLASS_LOGITS = [math.log(0.02)] * CLASSES + [math.log(0.8)]
"""Every digit equally rare, and mostly no object."""
_BOX_LOGITS = [0.0, 0.0, -1.27, -0.75]
"""Box in the middle with the mean sides, 0.22 and 0.32 of the canvas."""
_CORNERS = [-0.11, -0.16, 0.11, 0.16]
"""Corners of the mean box, seen from its centre, in shares of the canvas."""
_PLACE_WIDTH = 24
"""Channels of a token that start as its place, as many as a head has."""
_SHARPNESS = 1.6
"""Start of the attention's gain on places: a cell aside counts about a tenth."""
_WEAKEST_COMPONENT = 0.1
"""Variance, in normalized pixels, below which whitening does not raise a patch's component."""


def train(spec: BackboneSpec, *, images: int, seed: int, report_every: int = 0) -> ExplicitYolos:
    """Train the model of `spec` on so many scenes from a seeded start and return it in evaluation mode."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    stream = batches(load_digits_split("train"), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = cast("ExplicitYolos", build_model(spec))
        prepare(model, normalized(torch.cat([next(stream)[0] for _ in range(16)]), spec.data))
        dense = torch.nn.Linear(model.pos_embed.shape[-1], CLASSES + 1 + 4)
        start_at(dense, [*_CLASS_LOGITS, *_CORNERS])
    parameters = [*model.parameters(), *dense.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_PEAK_RATE, weight_decay=_WEIGHT_DECAY)
    steps = max(images // _BATCH, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    tune = load_scenes_split("tune")
    for step in range(steps):
        pixels, targets = next(stream)
        loss = training_loss(model, dense, normalized(pixels, spec.data), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, _MOST_GRADIENT)
        optimizer.step()
        schedule.step()
        if report_every and (step + 1) % report_every == 0:
            ap = box_ap(model, tune, spec)
            print(f"{(step + 1) * _BATCH} scenes: loss {loss.item():.3f}, AP {ap:.2f} on tune", flush=True)
    return model.eval()


def prepare(model: ExplicitYolos, pixels: Tensor) -> None:
    """Starting weights with which a transformer learns as fast as a convolution does.

    Patches enter whitened, every token knows its place (detection tokens that of a coarse grid's cell), and
    each head looks one cell to its own side. `pixels` is (n, C, H, W), normalized scenes.
    """
    import torch

    per_side = math.isqrt(model.num_prefix_tokens - 1)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, 1:, :_PLACE_WIDTH] = torch.cat(
            [place_code(cell_centres(*model.position_grid)), place_code(cell_centres(per_side, per_side))]
        )
        whiten(model.patch_embed.proj, pixels)
        for block in cast("Iterable[ExplicitBlock]", model.blocks):
            look_around(cast("Attention", block.attn), 1 / model.position_grid[0])
            for layer in (block.attn.proj, block.mlp.fc2):
                cast("nn.Linear", layer).weight *= 0.5
        start_at(model.class_head.last, _CLASS_LOGITS)
        start_at(model.box_head.last, _BOX_LOGITS)


def start_at(layer: nn.Linear, answer: list[float]) -> None:
    """Let a layer first say what is right on average: to learn that through the trunk would wash it out."""
    import torch

    with torch.no_grad():
        layer.weight *= 0.1
        layer.bias.copy_(torch.tensor(answer))


def whiten(projection: nn.Conv2d, pixels: Tensor) -> None:
    """Let the patch convolution give principal components of equal size, behind the place's channels."""
    import torch
    import torch.nn.functional as F

    side = projection.kernel_size[0]
    patches = F.unfold(pixels, side, stride=side).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(patches.T.cov())
    scale = (values + _WEAKEST_COMPONENT).rsqrt()
    components = (vectors * scale).T.flip(0)[: len(projection.weight) - _PLACE_WIDTH]
    projection.weight.zero_()
    projection.weight[_PLACE_WIDTH:] = torch.unflatten(components, 1, projection.weight.shape[1:])
    bias = cast("Tensor", projection.bias)
    bias.zero_()
    bias[_PLACE_WIDTH:] = -components @ patches.mean(dim=0)


def look_around(attention: Attention, cell: float) -> None:
    """Turn each head's queries so that they meet the keys one cell left, right, above or below."""
    import torch

    shape = (3, attention.num_heads, attention.head_dim)
    query, key, _ = torch.unflatten(attention.qkv.weight, 0, shape).unbind(0)
    for head, side in enumerate(((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))):
        turn = _turn(torch.tensor(side) * cell)
        query[head, :_PLACE_WIDTH, :_PLACE_WIDTH] += _SHARPNESS * turn
        key[head, :_PLACE_WIDTH, :_PLACE_WIDTH] += _SHARPNESS * torch.eye(_PLACE_WIDTH)


def cell_centres(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2): x and y of a grid's cells in shares of the canvas, row by row."""
    import torch

    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
    )
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def place_code(places: Tensor) -> Tensor:
    """(n, 2) -> (n, 24): sines, then cosines, of x and y at waves of 2 canvases down to a quarter of one."""
    import torch

    angles = (places.unsqueeze(-1) * _waves()).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _turn(shift: Tensor) -> Tensor:
    """(24, 24): the matrix that takes a place's code to that of the place moved by `shift` (2,)."""
    import torch

    angles = (shift.unsqueeze(-1) * _waves()).flatten()
    sine, cosine = angles.sin().diag(), angles.cos().diag()
    return torch.cat([torch.cat([cosine, sine], dim=1), torch.cat([-sine, cosine], dim=1)])


def _waves() -> Tensor:
    """Frequencies of the place code, in radians per canvas."""
    import torch

    return math.pi * 8 ** torch.linspace(0, 1, _PLACE_WIDTH // 4)


def batches(digits: Digits, *, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless pixels (16, 1, 96, 96) and targets (16, 5, 5)."""
    import torch

    while True:
        varied = Digits(augmented(digits.images, generator=generator), digits.labels, digits.positions)
        scenes = draw_scenes(varied, _BLOCK, generator=generator)
        targets = torch.split(scene_targets(scenes), _BATCH)
        yield from zip(torch.split(scenes.images, _BATCH), targets, strict=True)


def training_loss(model: ExplicitYolos, dense: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Set loss and dense loss, averaged over the supervised blocks."""
    import torch

    from backbones.guidance.set_loss import set_loss

    x = model.embed(images)
    losses = []
    for index, block in enumerate(model.blocks):
        x = block(x)
        if index >= _FIRST_SUPERVISED_BLOCK:
            patches = dense(model.norm(x[:, model.num_prefix_tokens :]))
            found = set_loss(
                model.answers(x), targets, class_weight=_CLASS_WEIGHT, no_object_weight=_NO_OBJECT_WEIGHT
            )
            losses.append(found + dense_loss(patches, targets, model.position_grid))
    return torch.stack(losses).mean()


def dense_loss(patches: Tensor, targets: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every patch names the smallest digit over its centre, or none, and where that digit's edges are.

    `patches` is (n, P, classes + 1 + 4): logits, then the box's corners seen from the patch's centre.
    """
    import torch
    import torch.nn.functional as F

    from backbones.guidance.outputs import corners
    from backbones.guidance.set_loss import DISTANCE_WEIGHT, IOU_WEIGHT, generalized_iou

    centre = cell_centres(*grid)
    boxes = corners(targets[..., 1:])
    point = centre[None, :, None]
    inside = ((point > boxes[:, None, :, :2]) & (point < boxes[:, None, :, 2:])).all(dim=-1)
    inside &= (targets[..., 0] >= 0).unsqueeze(1)
    area = targets[..., 3:].prod(dim=-1).unsqueeze(1).where(inside, math.inf)
    owner, covered = area.argmin(dim=-1), inside.any(dim=-1)
    wanted = targets[..., 0].gather(1, owner).long().where(covered, CLASSES)
    logits, offsets = torch.split(patches, [CLASSES + 1, 4], dim=-1)
    found = (offsets + centre.repeat(1, 2))[covered]
    truth = boxes.gather(1, owner.unsqueeze(-1).expand(-1, -1, 4))[covered]
    distance = (found - truth).abs().sum(dim=-1).mean()
    separation = (1 - generalized_iou(found, truth)).mean()
    weight = torch.tensor([1.0] * CLASSES + [_DENSE_NO_OBJECT_WEIGHT])
    classes = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight)
    return _CLASS_WEIGHT * classes + DISTANCE_WEIGHT * distance + IOU_WEIGHT * separation


def box_ap(model: ExplicitYolos, scenes: Scenes, spec: BackboneSpec) -> float:
    """COCO's box AP (IoU 0.50 to 0.95) in percent."""
    import torch
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with torch.inference_mode():
        answers = model.detections(model(normalized(scenes.images, spec.data)))
    rows = [
        {"image_id": number, "category_id": label + 1, "bbox": [x, y, r - x, b - y], "score": score}
        for number, found in enumerate(answers, start=1)
        for score, label, (x, y, r, b) in zip(
            found.scores.tolist(), found.labels.tolist(), (found.boxes * SIDE).tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints at every step
        truth = COCO()
        truth.dataset = coco_annotations(scenes)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0])


def _rate(done: float) -> float:
    """Learning rate over its peak when this share of the steps is done."""
    if done < _WARM_UP_SHARE:
        return (done + 1e-3) / _WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP_SHARE) / (1 - _WARM_UP_SHARE)))


def main(arguments: list[str] | None = None) -> None:
    """Train the detector, save it in half precision and print its box AP on the report scenes."""
    import safetensors.torch

    parser = argparse.ArgumentParser(prog="python -m backbones.digits.train_detector", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    spec = BUILT_IN[_NAME]
    model = train(spec, images=options.images, seed=options.seed, report_every=500)
    halves = {name: value.half() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(halves, options.output)
    model.load_state_dict(halves)
    print(f"{spec.name}: box AP {box_ap(model, load_scenes_split('report'), spec):.2f} % on report")


if __name__ == "__main__":
    main()
