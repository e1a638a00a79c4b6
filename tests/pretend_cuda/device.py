"""A pretend CUDA device for machines without one: real values, CUDA's rules, and a count of host syncs.

    with PretendCuda() as cuda:
        teacher = load_backbone("digits_vit", weights, DEVICE)
        ...
    cuda.syncs      # kind -> times
    cuda.places     # (kind, line of this project) -> times

A tensor of this device wraps a CPU tensor that holds its values, so everything that depends on values runs.
What a real device refuses is refused with DeviceFault:

    mixed devices   a CPU tensor beside one of the device; scalars (0-dim) may stand in pointwise operators,
                    and CPU indices in an index
    generators      a CPU generator handed to an operator that fills a tensor of the device
    hidden state    a draw without a generator, which would depend on the device's global state

What makes the host wait is counted by kind:

    item            float(), bool(), int() and item() of a tensor of the device
    download        .cpu() and .tolist()
    upload          .to(DEVICE) and a tensor made there from Python numbers: pageable copies end in a sync
    size            the shape of the answer depends on values: nonzero, a boolean mask, unique, NMS

A real card differs in its arithmetic, its streams and its memory; nothing here says anything about those.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.pretend_cuda.cases import line_of_project

NAME = "cudapretend"
"""Type of the device. It begins with `cuda`, as the project asks of a GPU; `cuda` itself cannot be pretended,
since autograd asks the CUDA runtime for its streams."""

_OPS = torch.ops.aten
_COPIES = (_OPS._to_copy.default, _OPS.copy_.default)
_INDEXING = (
    _OPS.index.Tensor,
    _OPS.index_put.default,
    _OPS.index_put_.default,
    _OPS._index_put_impl_.default,
    _OPS._unsafe_index.Tensor,
)
_SIZED_BY_VALUES = frozenset(
    f"aten::{name}"
    for name in (
        "nonzero",
        "masked_select",
        "unique_dim",
        "_unique",
        "_unique2",
        "unique_consecutive",
        "bincount",
        "equal",
    )
) | {"torchvision::nms"}


class DeviceFault(RuntimeError):
    """What a real device would have refused."""


def _registered() -> torch.device:
    """The device, made known to torch under its name; once per process."""
    from torch.utils import backend_registration as registration

    class Module(registration._DummyBackendModule):
        """What `torch.cudapretend` is; random states are saved around tests, and there is none to save."""

        def get_rng_state(self, device: object = None) -> Tensor:
            return torch.empty(0)

        def set_rng_state(self, state: object, device: object = None) -> None:
            pass

    if registration._get_privateuse1_backend_name() != NAME:
        registration._setup_privateuseone_for_python_backend(NAME, Module())
    return torch.device(NAME, 0)


if torch.cuda.is_available():  # torch knows one kind of accelerator per process, and would take this one
    pytest.skip("a real GPU is here, whose own tests say more", allow_module_level=True)
DEVICE = _registered()


class _OnDevice(Tensor):
    """Says that it lies on the device; `held` has its values and lies on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> _OnDevice:
        made: _OnDevice = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{NAME}({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = self.detach().clone()
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        else:
            copied.requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not PretendCuda.entered:
            raise DeviceFault(f"{func.name()}: the pretended device is gone")
        return PretendCuda.entered[-1].run(func, args, kwargs or {})


class _Interface(TorchFunctionMode):
    """Calls that never reach an operator, or whose choice of kernels knows no pretended device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ours = bool(args) and isinstance(args[0], _OnDevice)
        if ours and func is nn.functional.scaled_dot_product_attention:
            return _OPS._scaled_dot_product_attention_math(*args, **kwargs)[0]
        if ours and func is Tensor.tolist:
            return args[0].detach().cpu().tolist()
        if ours and func is Tensor.numpy:
            raise DeviceFault("numpy(): the tensor is on the device; copy it to the CPU first")
        return func(*args, **kwargs)


_CUDA_MODULE: Mapping[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "pretended",
    "get_device_capability": lambda device=None: (9, 0),
    "synchronize": lambda device=None: None,
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "empty_cache": lambda: None,
    "is_current_stream_capturing": lambda: False,
}


class PretendCuda(TorchDispatchMode):
    """The device, for as long as the block lasts."""

    entered: ClassVar[list[PretendCuda]] = []

    def __init__(self) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self._left = contextlib.ExitStack()

    def __enter__(self) -> PretendCuda:
        for name, answer in _CUDA_MODULE.items():
            self._left.enter_context(mock.patch.object(torch.cuda, name, answer))
        # A wrapper cannot be an inference tensor.
        self._left.enter_context(mock.patch.object(torch, "inference_mode", _no_gradient))
        # torch.tensor(..., device=...) shall make a CPU tensor and then copy it, as it does on a real device.
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._left.callback(torch._C._set_only_lift_cpu_tensors, before)
        self.entered.append(self)
        self._left.callback(self.entered.remove, self)
        self._left.enter_context(_Interface())
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._left.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def forget(self) -> None:
        """Count from here."""
        self.syncs.clear()
        self.places.clear()

    def run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """One operator: its rules checked, its syncs counted, its work done on the CPU."""
        flat, shape = tree_flatten((args, kwargs))
        ours = [value for value in flat if isinstance(value, _OnDevice)]
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        arrives = target is not None and target.type == NAME
        if not ours and not arrives:
            return func(*args, **kwargs)
        others = [v for v in flat if isinstance(v, Tensor) and not isinstance(v, _OnDevice)]
        _refuse_draw(func, flat)
        _refuse_mixture(func, flat, ours, others)
        self._count(_sync_of(func, args, kwargs, ours, others, target))
        held = [value.held if isinstance(value, _OnDevice) else value for value in flat]
        inner_args, inner_kwargs = tree_unflatten(held, shape)
        if target is not None:
            inner_kwargs = {**inner_kwargs, "device": torch.device("cpu")}
        answer = func(*inner_args, **inner_kwargs)
        if func is _OPS.copy_.default:
            return args[0]
        if func is _OPS._to_copy.default and inner_args[0] is answer:
            answer = answer.clone()  # crossing the bus always makes a new tensor
        leaves = target is not None and target.type == "cpu"
        return answer if leaves else _wrapped(answer, ours)

    def _count(self, kind: str | None) -> None:
        if kind is not None:
            self.syncs[kind] += 1
            self.places[kind, line_of_project()] += 1


def _no_gradient(mode: bool = True) -> torch.no_grad:
    """Takes the place of `torch.inference_mode`."""
    return torch.no_grad()


def _wrapped(answer: Any, ours: Sequence[_OnDevice]) -> Any:
    """The answer on the device; what an operator changed in place stays the same object."""
    known = {id(one.held): one for one in ours}
    values, shape = tree_flatten(answer)
    return tree_unflatten(
        [_on_device(value, known) if isinstance(value, Tensor) else value for value in values], shape
    )


def _on_device(value: Tensor, known: Mapping[int, _OnDevice]) -> _OnDevice:
    found = known.get(id(value))
    return _OnDevice(value) if found is None else found


def _refuse_draw(func: Any, flat: Sequence[Any]) -> None:
    generators = [value for value in flat if isinstance(value, Generator)]
    if any(generator.device.type == "cpu" for generator in generators):
        raise DeviceFault(f"{func.name()}: a CPU generator fills a tensor of the device")
    draws = torch.Tag.nondeterministic_seeded in func.tags
    inactive = "dropout" in func.name() or "attention" in func.name()  # drawn from only while training
    if draws and not generators and not inactive:
        raise DeviceFault(f"{func.name()}: draws from the global state of the device")


def _refuse_mixture(func: Any, flat: Sequence[Any], ours: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    if not ours or not others or func in _COPIES:
        return
    target = next(value for value in flat if isinstance(value, Tensor))
    if func in _INDEXING and isinstance(target, _OnDevice):
        return
    scalars = all(other.dim() == 0 for other in others)
    into_cpu = func.name().split(".")[0].endswith("_") and not isinstance(target, _OnDevice)
    if torch.Tag.pointwise in func.tags and scalars and not into_cpu:
        return
    shapes = ", ".join(
        f"{'device' if isinstance(v, _OnDevice) else 'cpu'} {tuple(v.shape)}"
        for v in flat
        if isinstance(v, Tensor)
    )
    raise DeviceFault(f"{func.name()}: tensors on both devices: {shapes}")


def _sync_of(
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    ours: Sequence[Tensor],
    others: Sequence[Tensor],
    target: torch.device | None,
) -> str | None:
    """The kind of sync that this operator is; None for one that does not make the host wait."""
    if func is _OPS._local_scalar_dense.default:
        return "item"
    if func is _OPS._to_copy.default and target is not None:
        if ours and target.type == "cpu":
            return "download"
        return "upload" if others and target.type == NAME else None
    if func is _OPS.copy_.default and ours and others:
        return "upload" if isinstance(args[0], _OnDevice) else "download"
    if func.name() in _SIZED_BY_VALUES:
        return "size"
    if func.name() == "aten::repeat_interleave.Tensor" and kwargs.get("output_size") is None:
        return "size"
    if func in _INDEXING:
        indices = [index for index in args[1] if isinstance(index, Tensor)]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            return "size"
        return "upload" if any(not isinstance(index, _OnDevice) for index in indices) else None
    return None
