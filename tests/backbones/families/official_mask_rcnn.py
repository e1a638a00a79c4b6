"""The official Swin detector, written from its formulas on plain tensors under its own key names.

Attention is computed densely over all tokens of a map, with what a window may not see masked out; merging,
upsampling and deconvolution are spelled out. Nothing here uses timm's or torchvision's models.
"""

import math

import torch
import torch.nn.functional as F

from backbones.base import BackboneSpec, DataConfig

EMBED, DEPTHS, HEADS, WINDOW = 16, (2, 2, 2, 2), (1, 2, 4, 4), 7
CHANNELS, HIDDEN, CLASSES = 12, 20, 6
STRIDES = (4, 8, 16, 32, 64)

SPEC = BackboneSpec(
    name="tiny_mask_rcnn",
    family="mask_rcnn",
    published_name="",
    timm_name="swin_tiny_patch4_window7_224",
    data=DataConfig(input_size=(3, 96, 128), mean=(0.5,) * 3, std=(0.25,) * 3, pad_multiple=32),
    num_classes=CLASSES,
    dataset="coco",
    model_settings={
        "embed_dim": EMBED,
        "depths": DEPTHS,
        "num_heads": HEADS,
        "pyramid_channels": CHANNELS,
        "box_hidden": HIDDEN,
    },
)


def layer(name, *shape):
    """Weight and bias of one layer; the bias has the length of the first axis."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def block_shapes(name, width, heads):
    return {
        **layer(f"{name}.norm1", width),
        **layer(f"{name}.attn.qkv", 3 * width, width),
        **layer(f"{name}.attn.proj", width, width),
        f"{name}.attn.relative_position_bias_table": ((2 * WINDOW - 1) ** 2, heads),
        **layer(f"{name}.norm2", width),
        **layer(f"{name}.mlp.fc1", 4 * width, width),
        **layer(f"{name}.mlp.fc2", width, 4 * width),
    }


def official_shapes(
    embed=EMBED, depths=DEPTHS, heads=HEADS, channels=CHANNELS, hidden=HIDDEN, classes=CLASSES
):
    shapes = layer("backbone.patch_embed.proj", embed, 3, 4, 4) | layer("backbone.patch_embed.norm", embed)
    for stage, depth in enumerate(depths):
        width = embed * 2**stage
        for block in range(depth):
            shapes |= block_shapes(f"backbone.layers.{stage}.blocks.{block}", width, heads[stage])
        if stage < 3:
            shapes[f"backbone.layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes |= layer(f"backbone.layers.{stage}.downsample.norm", 4 * width)
        shapes |= layer(f"backbone.norm{stage}", width)
        shapes |= layer(f"neck.lateral_convs.{stage}.conv", channels, width, 1, 1)
        shapes |= layer(f"neck.fpn_convs.{stage}.conv", channels, channels, 3, 3)
    shapes |= layer("rpn_head.rpn_conv", channels, channels, 3, 3)
    shapes |= layer("rpn_head.rpn_cls", 3, channels, 1, 1)
    shapes |= layer("rpn_head.rpn_reg", 12, channels, 1, 1)
    shapes |= layer("roi_head.bbox_head.shared_fcs.0", hidden, channels * 49)
    shapes |= layer("roi_head.bbox_head.shared_fcs.1", hidden, hidden)
    shapes |= layer("roi_head.bbox_head.fc_cls", classes + 1, hidden)
    shapes |= layer("roi_head.bbox_head.fc_reg", classes * 4, hidden)
    for index in range(4):
        shapes |= layer(f"roi_head.mask_head.convs.{index}.conv", channels, channels, 3, 3)
    shapes |= layer("roi_head.mask_head.upsample", channels, channels, 2, 2)
    return shapes | layer("roi_head.mask_head.conv_logits", classes, channels, 1, 1)


def random_state(seed=0):
    """Weights that keep activations near 1 and spread classes and boxes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_shapes().items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            state[name] = 0.2 * drawn
        elif "norm" in name:
            state[name] = 1 + 0.2 * drawn
        else:
            state[name] = drawn * math.sqrt(2 / max(drawn[0].numel(), 1))
    state["rpn_head.rpn_reg.weight"] *= 0.02
    return state


def attended(x, state, name, shift, heads):
    """Shifted window attention of a map (B, H, W, C), every token against every other."""
    batch, height, width, channels = x.shape
    rows, columns = (math.ceil(side / WINDOW) * WINDOW for side in (height, width))
    padded = x.new_zeros(batch, rows, columns, channels)
    padded[:, :height, :width] = x
    tokens = padded.reshape(batch, rows * columns, channels)

    row, column = torch.meshgrid(
        (torch.arange(rows) - shift) % rows, (torch.arange(columns) - shift) % columns, indexing="ij"
    )
    row, column = row.flatten(), column.flatten()

    def part(place, side):
        return (place >= side - WINDOW).long() + (place >= side - shift).long()

    window = row // WINDOW * columns + column // WINDOW
    region = 3 * part(row, rows) + part(column, columns)
    step_y, step_x = (
        (place % WINDOW)[:, None] - (place % WINDOW)[None] + WINDOW - 1 for place in (row, column)
    )
    bias = state[f"{name}.relative_position_bias_table"][step_y * (2 * WINDOW - 1) + step_x]

    q, k, v = F.linear(tokens, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"]).chunk(3, dim=-1)
    results = []
    for head in range(heads):
        own = slice(head * channels // heads, (head + 1) * channels // heads)
        logits = q[..., own] @ k[..., own].mT / math.sqrt(channels // heads) + bias[..., head]
        if shift:
            logits = logits - 100 * (region[:, None] != region[None])
        logits = logits.masked_fill(window[:, None] != window[None], -math.inf)
        results.append(logits.softmax(-1) @ v[..., own])
    out = F.linear(torch.cat(results, -1), state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])
    return out.reshape(batch, rows, columns, channels)[:, :height, :width]


def normalized(x, state, name):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(x, state, name):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def convolved(x, state, name, **settings):
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **settings)


def swin(images, state):
    """Normalized outputs of the four stages, (B, C, h, w) each."""
    x = convolved(images, state, "backbone.patch_embed.proj", stride=4).permute(0, 2, 3, 1)
    x = normalized(x, state, "backbone.patch_embed.norm")
    outputs = []
    for stage, depth in enumerate(DEPTHS):
        for index in range(depth):
            name = f"backbone.layers.{stage}.blocks.{index}"
            shift = WINDOW // 2 if index % 2 else 0
            x = x + attended(
                normalized(x, state, f"{name}.norm1"), state, f"{name}.attn", shift, HEADS[stage]
            )
            hidden = F.gelu(linear(normalized(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1"))
            x = x + linear(hidden, state, f"{name}.mlp.fc2")
        outputs.append(normalized(x, state, f"backbone.norm{stage}").permute(0, 3, 1, 2))
        if stage < 3:
            name = f"backbone.layers.{stage}.downsample"
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            corners = [x[:, down::2, right::2] for down, right in ((0, 0), (1, 0), (0, 1), (1, 1))]
            x = (
                normalized(torch.cat(corners, -1), state, f"{name}.norm")
                @ state[f"{name}.reduction.weight"].T
            )
    return outputs


def pyramid(stages, state):
    """Five levels, finest first."""
    sums = [convolved(x, state, f"neck.lateral_convs.{index}.conv") for index, x in enumerate(stages)]
    for index in (2, 1, 0):
        sums[index] = sums[index] + sums[index + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = [convolved(x, state, f"neck.fpn_convs.{i}.conv", padding=1) for i, x in enumerate(sums)]
    return [*levels, levels[-1][:, :, ::2, ::2]]


def rpn(levels, state):
    """Objectness and refinements per level."""
    hidden = [convolved(x, state, "rpn_head.rpn_conv", padding=1).clamp(min=0) for x in levels]
    return tuple([convolved(x, state, f"rpn_head.{part}") for x in hidden] for part in ("rpn_cls", "rpn_reg"))


def box_head(regions, state):
    """Logits with the background last, and refinements without it."""
    name = "roi_head.bbox_head"
    first = state[f"{name}.shared_fcs.0.weight"].view(-1, *regions.shape[1:])
    hidden = torch.einsum("nchw,ochw->no", regions, first) + state[f"{name}.shared_fcs.0.bias"]
    hidden = linear(hidden.clamp(min=0), state, f"{name}.shared_fcs.1").clamp(min=0)
    return linear(hidden, state, f"{name}.fc_cls"), linear(hidden, state, f"{name}.fc_reg")


def mask_head(regions, state):
    """Mask logits of every class."""
    name = "roi_head.mask_head"
    for index in range(4):
        regions = convolved(regions, state, f"{name}.convs.{index}.conv", padding=1).clamp(min=0)
    weight, bias = state[f"{name}.upsample.weight"], state[f"{name}.upsample.bias"]
    larger = regions.new_zeros(len(regions), len(bias), 28, 28)
    for down in (0, 1):
        for right in (0, 1):
            larger[:, :, down::2, right::2] = (
                torch.einsum("nchw,co->nohw", regions, weight[:, :, down, right]) + bias[:, None, None]
            )
    return convolved(larger.clamp(min=0), state, f"{name}.conv_logits")


def pooled_region(level, box, stride, size):
    """One region (C, size, size) of one level (C, h, w): the mean of ceil(side / size) samples per bin."""
    if (box[2:] <= box[:2]).any():
        return level.new_zeros(len(level), size, size)
    left, top, right, bottom = (side / stride - 0.5 for side in box.tolist())

    def samples(start, end):
        per_bin = math.ceil((end - start) / size)
        return start + (end - start) * (torch.arange(size * per_bin) + 0.5) / (size * per_bin), per_bin

    (x, across), (y, down) = samples(left, right), samples(top, bottom)
    height, width = level.shape[1:]
    grid_y, grid_x = torch.meshgrid((2 * y + 1) / height - 1, (2 * x + 1) / width - 1, indexing="ij")
    seen = F.grid_sample(
        level[None], torch.stack([grid_x, grid_y], -1)[None], padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(seen, (down, across))[0]


def pooled_boxes(levels, boxes, size):
    """Regions of one image; `levels` (C, h, w) of strides 4 to 32."""
    regions = []
    for box in boxes:
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        index = min(max(math.floor(math.log2(side / 56 + 1e-6)), 0), 3)
        regions.append(pooled_region(levels[index], box, STRIDES[index], size))
    return torch.stack(regions) if regions else levels[0].new_zeros(0, len(levels[0]), size, size)


def refined(boxes, deltas, stds, canvas):
    """Boxes (n, 4) moved and scaled by deltas (n, 4), cut at the canvas."""
    dx, dy, dw, dh = (deltas * torch.tensor(stds)).unbind(-1)
    most = math.log(1000 / 16)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * torch.stack([dx, dy], -1)
    half = size * torch.stack([dw, dh], -1).clamp(-most, most).exp() / 2
    low_high = torch.cat([centre - half, centre + half], -1)
    height, width = canvas
    return torch.minimum(low_high.clamp(min=0), torch.tensor([width, height, width, height]))


def survivors(boxes, scores, overlap):
    """Indices of a greedy suppression, best first."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    order, kept = scores.argsort(descending=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        shared = (
            torch.minimum(boxes[best, 2:], boxes[order, 2:])
            - torch.maximum(boxes[best, :2], boxes[order, :2])
        ).clamp(min=0)
        union = area[best] + area[order] - shared.prod(-1)
        order = order[~(shared.prod(-1) / union > overlap)]
    return kept


def level_anchor_list(rows, columns, stride):
    """Anchors of one level one by one: centred on the upper left corner of every cell."""
    anchors = []
    for row in range(rows):
        for column in range(columns):
            for ratio in (0.5, 1.0, 2.0):
                half_width, half_height = (
                    4 * stride * math.sqrt(1 / ratio),
                    4 * stride * math.sqrt(ratio),
                )
                x, y = column * stride, row * stride
                anchors.append([x - half_width, y - half_height, x + half_width, y + half_height])
    return torch.tensor(anchors)


def proposals(objectness, deltas, canvas):
    """At most 1000 boxes of one image; maps (A, h, w) and (A * 4, h, w) per level."""
    boxes, scores = [], []
    for logits, codes, stride in zip(objectness, deltas, STRIDES, strict=True):
        anchors = level_anchor_list(*logits.shape[1:], stride)
        score, best = logits.permute(1, 2, 0).flatten().sigmoid().sort(descending=True, stable=True)
        best, score = best[:1000], score[:1000]
        codes = codes.permute(1, 2, 0).reshape(-1, 4)[best]
        moved = refined(anchors[best], codes, (1.0, 1.0, 1.0, 1.0), canvas)
        kept = survivors(moved, score, 0.7)
        boxes.append(moved[kept])
        scores.append(score[kept])
    return torch.cat(boxes)[torch.cat(scores).argsort(descending=True, stable=True)[:1000]]


def detections(levels, boxes, state, canvas):
    """(score, label, box, mask) of one image, best first, at most 100; boxes in pixels."""
    logits, deltas = box_head(pooled_boxes(levels, boxes, 7), state)
    scores, found = logits.softmax(-1), []
    for label in range(CLASSES):
        moved = refined(boxes, deltas[:, 4 * label : 4 * label + 4], (0.1, 0.1, 0.2, 0.2), canvas)
        enough = scores[:, label] > 0.05
        moved, score = moved[enough], scores[enough, label]
        found += [(score[index], label, moved[index]) for index in survivors(moved, score, 0.5)]
    found = sorted(found, key=lambda one: -one[0])[:100]
    masks = mask_head(pooled_boxes(levels, [box for _, _, box in found], 14), state).sigmoid()
    return [(*one, mask[one[1]]) for one, mask in zip(found, masks, strict=True)]
