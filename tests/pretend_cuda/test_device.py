"""The pretended device refuses what CUDA refuses, and counts what makes the host wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from tests.pretend_cuda.device import DEVICE, DeviceFault, PretendCuda

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def cuda():
    with PretendCuda() as device:
        yield device


def on_device(*shape: int) -> Tensor:
    values = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)
    return values.to(DEVICE)


REFUSED: dict[str, Callable[[], object]] = {
    "a sum of both devices": lambda: on_device(2, 3) + torch.ones(2, 3),
    "a product of matrices of both": lambda: on_device(2, 3) @ torch.ones(3, 2),
    "a concatenation of both": lambda: torch.cat([on_device(2), torch.ones(2)]),
    "a scalar of the CPU in a matrix product": lambda: torch.dot(on_device(1), torch.ones(1)),
    "an answer written into a CPU tensor": lambda: torch.ones(()).add_(on_device(1).sum()),
    "indices of the device into a CPU tensor": lambda: torch.ones(4)[on_device(2).long()],
    "a CPU generator": lambda: torch.randn(2, generator=Generator(), device=DEVICE),
    "a CPU generator in place": lambda: on_device(2).normal_(generator=Generator()),
    "a draw from global state": lambda: torch.rand_like(on_device(2)),
    "numbers read by numpy": lambda: on_device(2).numpy(),
    "a layer left on the CPU": lambda: nn.Linear(3, 2)(on_device(1, 3)),
}


@pytest.mark.parametrize("fault", REFUSED, ids=list(REFUSED))
def test_what_a_real_device_refuses_is_refused(fault, cuda):
    with pytest.raises(DeviceFault):
        REFUSED[fault]()


COUNTED: dict[str, tuple[Callable[[Tensor], object], dict[str, int]]] = {
    "float": (lambda x: float(x.sum()), {"item": 1}),
    "a branch": (lambda x: bool((x > 0).all()), {"item": 1}),
    "to the CPU": (lambda x: x.cpu(), {"download": 1}),
    "as a list": (lambda x: x.tolist(), {"download": 1}),
    "to the device": (lambda x: torch.ones(2).to(DEVICE), {"upload": 1}),
    "made of numbers": (lambda x: torch.tensor([1.0, 2.0], device=DEVICE), {"upload": 1}),
    "a mask": (lambda x: x[x > 2], {"size": 1}),
    "nonzero": (lambda x: x.nonzero(), {"size": 1}),
    "indices of the CPU": (lambda x: x[torch.tensor([0, 1])], {"upload": 1}),
    "indices of the device": (lambda x: x[(x.argsort())], {}),
    "arithmetic": (lambda x: (x * 2 + 1).softmax(0).mean(), {}),
    "filled there": (lambda x: torch.zeros(3, device=DEVICE) + x[:3].sum(), {}),
    "a CPU scalar": (lambda x: x * torch.tensor(2.0), {}),
}


@pytest.mark.parametrize("what", COUNTED, ids=list(COUNTED))
def test_what_makes_the_host_wait_is_counted(what, cuda):
    work, expected = COUNTED[what]
    values = on_device(4)
    cuda.forget()
    work(values)
    assert dict(cuda.syncs) == expected


def test_values_and_gradients_are_those_of_the_cpu(cuda):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 1))
    images = torch.randn(5, 4)
    expected = torch.autograd.grad(layer(images).sum(), list(layer.parameters()))
    there = layer.to(DEVICE)
    assert all(parameter.device == DEVICE for parameter in there.parameters())
    found = torch.autograd.grad(there(images.to(DEVICE)).sum(), list(there.parameters()))
    for own, other in zip(found, expected, strict=True):
        assert torch.equal(own.cpu(), other)


def test_nothing_is_left_of_the_device_afterwards():
    before = (torch.cuda.is_available(), torch.cuda.device_count(), torch.inference_mode)
    with PretendCuda():
        kept = on_device(2)
        assert torch.cuda.is_available()
    assert (torch.cuda.is_available(), torch.cuda.device_count(), torch.inference_mode) == before
    with pytest.raises(DeviceFault, match="gone"):
        kept + 1
