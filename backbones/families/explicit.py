"""timm's ViT and Swin with every tensor that somebody taps or quantizes behind a named module.

The modules, their names and their weights stay timm's, so checkpoints load unchanged; only `forward`
differs, and the logits agree within 1e-4 (a test holds this for every family). Where nobody looks,
attention still runs through the fused kernel. Knows nothing about quantizers or priors.

    VisionTransformer                      SwinTransformer
      patch_embed                            patch_embed (proj, norm)
      tokens       after the CLS concat      layers.*.downsample (norm, reduction)
      position     the position embedding    layers.*.blocks.* as on the left, with
      embedded     their sum                   attn.bias        the relative position bias
      blocks.*                                 attn.biased      logits + bias
        norm1, attn (below), residual1       norm, head
        norm2, mlp (fc1, act, fc2), residual2
      norm, head
    attention: qkv, qk (q k^T), logits (scaled), softmax, av (attn v), proj
"""

from __future__ import annotations

from types import TracebackType

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention, maybe_add_mask, resolve_self_attn_mask
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn


class MatMul(nn.Module):
    """`a @ b` as a module, so that a quantizer can replace it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The matrix product over the last two axes."""
        return a @ b


class Add(nn.Module):
    """`a + b` as a module, so that a quantizer can hang on the sum."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of two tensors whose shapes broadcast."""
        return a + b


class AttentionTaps:
    """Collects attention tensors of every layer, in forward order, while the `with` block runs.

    with AttentionTaps(model, logits=True) as taps:
        model(images)
    taps.logits[3]  # q k^T of the fourth layer

    ViT: `logits` are q k^T before the scale, (B, H, N, N); `outputs` are attn @ v before the head merge,
    (B, H, N, d). Swin: q is scaled first and no bias is added; the batch axis is B * windows, image-major.
    `maps` are the softmax's outputs, with everything that enters it: (B, H, N, N), rows that sum to 1.
    Gradients flow. A second forward in the same block starts the lists anew.
    """

    def __init__(
        self, model: nn.Module, *, logits: bool = False, outputs: bool = False, maps: bool = False
    ) -> None:
        self.want_logits = logits
        self.want_outputs = outputs
        self.want_maps = maps
        self.logits: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.maps: list[Tensor] = []
        self._model = model
        self._modules = attention_modules(model)
        self._clear_hook: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> AttentionTaps:
        if any(module.taps is not None for module in self._modules):
            raise RuntimeError(
                "attention is already tapped; leave the other `with AttentionTaps` block first"
            )
        for module in self._modules:
            module.taps = self
        self._clear_hook = self._model.register_forward_pre_hook(lambda *_: self.clear())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module in self._modules:
            module.taps = None
        if self._clear_hook is not None:
            self._clear_hook.remove()

    def clear(self) -> None:
        """Forget the tensors collected so far."""
        self.logits = []
        self.outputs = []
        self.maps = []

    def see(
        self, *, logits: Tensor | None = None, outputs: Tensor | None = None, maps: Tensor | None = None
    ) -> None:
        """Called by the attention modules."""
        if logits is not None and self.want_logits:
            self.logits.append(logits)
        if outputs is not None and self.want_outputs:
            self.outputs.append(outputs)
        if maps is not None and self.want_maps:
            self.maps.append(maps)


class _TappedAttention:
    """What both attention classes share: the tap, and whether the fused kernel may run."""

    taps: AttentionTaps | None
    quantized: bool

    def _add_places(self) -> None:
        self.taps = None
        self.quantized = False
        """Set by an engine that quantizes inside attention; it forbids the fused kernel."""
        self.qk = MatMul()
        self.logits = nn.Identity()
        self.softmax = nn.Softmax(dim=-1)
        self.av = MatMul()

    @property
    def _fused(self) -> bool:
        looks_inside = self.taps is not None and (self.taps.want_logits or self.taps.want_maps)
        return not self.quantized and not looks_inside

    def _see(self, **tensors: Tensor) -> None:
        if self.taps is not None:
            self.taps.see(**tensors)


class ExplicitAttention(_TappedAttention, Attention):
    """Multi-head attention of ViT and DeiT."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend over tokens: (B, N, C) -> (B, N, C)."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self._fused:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, is_causal=is_causal)
        else:
            raw = self.qk(q, k.transpose(-2, -1))
            self._see(logits=raw)
            bias = resolve_self_attn_mask(tokens, raw, attn_mask, is_causal)
            scaled = maybe_add_mask(self.logits(raw * self.scale), bias)
            attention = self.softmax(scaled)
            self._see(maps=attention)
            out = self.av(attention, v)
        self._see(outputs=out)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        return projected


class ExplicitWindowAttention(_TappedAttention, WindowAttention):
    """Window attention of Swin with its relative position bias."""

    def _add_places(self) -> None:
        super()._add_places()
        self.bias = nn.Identity()
        self.biased = Add()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside each window: (B * windows, N, C) -> the same shape."""
        windows, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(windows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = self.bias(self._get_rel_pos_bias())
        if self._fused:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._with_mask(bias, mask, windows))
        else:
            raw = self.qk(q * self.scale, k.transpose(-2, -1))
            self._see(logits=raw)
            scaled = self.biased(self.logits(raw), bias)
            if mask is not None:
                scaled = scaled + self._with_mask(torch.zeros_like(bias), mask, windows)
            attention = self.softmax(scaled)
            self._see(maps=attention)
            out = self.av(attention, v)
        self._see(outputs=out)
        projected: Tensor = self.proj(out.transpose(1, 2).reshape(windows, tokens, -1))
        return projected

    def _with_mask(self, bias: Tensor, mask: Tensor | None, windows: int) -> Tensor:
        """Add the shift mask (nW, N, N) to the bias (1, H, N, N), repeated for every image."""
        if mask is None:
            return bias
        one_image = bias + mask.unsqueeze(1)
        return one_image.repeat(windows // mask.shape[0], 1, 1, 1)


class ExplicitBlock(Block):
    """Pre-norm transformer block with its residual sums as modules."""

    def _add_places(self) -> None:
        self.residual1 = Add()
        self.residual2 = Add()

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = self.residual1(x, self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)))
        x = self.residual2(x, self.ls2(self.mlp(self.norm2(x))))
        return x


class ExplicitSwinBlock(SwinTransformerBlock):
    """Swin block with its residual sums as modules."""

    def _add_places(self) -> None:
        self.residual1 = Add()
        self.residual2 = Add()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, channels = x.shape
        x = self.residual1(x, self._attn(self.norm1(x))).reshape(batch, -1, channels)
        x = self.residual2(x, self.mlp(self.norm2(x)))
        return x.reshape(batch, height, width, channels)

    def _attn(self, x: Tensor) -> Tensor:
        attended: Tensor = super()._attn(x)  # type: ignore[no-untyped-call]
        return attended


class ExplicitVisionTransformer(VisionTransformer):
    """ViT whose embedding steps are modules."""

    def _add_places(self) -> None:
        self.tokens = nn.Identity()
        self.position = nn.Identity()
        self.embedded = Add()

    def _pos_embed(self, x: Tensor) -> Tensor:
        # `make_explicit` refuses models without these two.
        assert self.cls_token is not None
        assert self.pos_embed is not None
        cls = self.cls_token.expand(x.shape[0], -1, -1)
        tokens = self.tokens(torch.cat([cls, x], dim=1))
        embedded: Tensor = self.embedded(tokens, self.position(self.pos_embed))
        return embedded


_EXPLICIT: dict[type[nn.Module], type[nn.Module]] = {
    Attention: ExplicitAttention,
    WindowAttention: ExplicitWindowAttention,
    Block: ExplicitBlock,
    SwinTransformerBlock: ExplicitSwinBlock,
    VisionTransformer: ExplicitVisionTransformer,
}


def make_explicit(model: nn.Module) -> nn.Module:
    """Turn a timm ViT, DeiT or Swin into its explicit form, in place; weights and key names stay.

    Raises ValueError for any other architecture and for options whose forward we do not reproduce.
    """
    if type(model) not in (VisionTransformer, SwinTransformer):
        raise ValueError(
            f"{type(model).__name__} is not supported: explicit attention exists for timm's "
            "VisionTransformer (ViT, DeiT) and SwinTransformer"
        )
    _refuse_unsupported(model)
    return expose_attention(model)


def expose_attention(model: nn.Module) -> nn.Module:
    """Turn every timm module inside `model` that has an explicit form into it, in place."""
    for module in list(model.modules()):
        explicit = _EXPLICIT.get(type(module))
        if explicit is not None:
            module.__class__ = explicit
            module._add_places()  # type: ignore[operator]
    return model


def attention_modules(model: nn.Module) -> list[ExplicitAttention | ExplicitWindowAttention]:
    """Every attention module of an explicit model, in forward order."""
    return [m for m in model.modules() if isinstance(m, ExplicitAttention | ExplicitWindowAttention)]


def _refuse_unsupported(model: nn.Module) -> None:
    faults = []
    if isinstance(model, VisionTransformer):
        if model.cls_token is None or model.reg_token is not None or model.no_embed_class:
            faults.append("one CLS token with its own position embedding is needed")
        if model.dynamic_img_size or model.pos_embed is None:
            faults.append("the position embedding must be fixed")
        if model.num_prefix_tokens != 1:
            faults.append("distilled models have a second prefix token")
    for name, module in model.named_modules():
        if isinstance(module, Attention) and (
            not isinstance(module.q_norm, nn.Identity)
            or not isinstance(module.norm, nn.Identity)
            or module.gate is not None
        ):
            faults.append(f"{name} uses query/key norm, output norm or a gate")
        rate = module.p if isinstance(module, nn.Dropout) else getattr(module, "drop_prob", 0.0)
        if rate:
            faults.append(f"{name} has drop rate {rate}; build the model with all drop rates 0")
    if faults:
        raise ValueError(f"{type(model).__name__} has options that are not supported: " + "; ".join(faults))
