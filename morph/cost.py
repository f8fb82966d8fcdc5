"""What a computation costs: operations, time, memory, and how near it comes to what the machine can do."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

__all__ = [
    "Products",
    "Work",
    "count_operations",
    "forecast_cost",
    "least_times",
    "matrix_product",
    "peak_memory",
    "products",
]

Work = Callable[[], object]
"""What is measured, such as a training step."""

_OPERATIONS = ("mm", "addmm", "bmm", "baddbmm")
_KERNELS = ("convolution", "conv2d", "conv3d", "attention", "gemm", "cutlass", "cublas", "nvjet", "flash", "fmha")


class Products(NamedTuple):
    """Share of the time that is spent in matrix products, convolutions and attention, and their operations per s."""

    share: float
    rate: float


def matrix_product(device: str, dtype: torch.dtype, size: int | None = None) -> tuple[Work, int]:
    """A large square matrix product, whose rate is what the machine can do, and its number of operations."""
    size = size or (8192 if device == "cuda" else 2048)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b, 2 * size**3


def least_times(works: Sequence[Work], device: str, repeats: int) -> list[float]:
    """Least time of each in s: what else runs on the machine only adds to it.

    They take turns, so that a change of the machine's speed meets all of them.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()  # the first time allocates, and compiles
    for _ in range(repeats):
        for work, taken in zip(works, seconds, strict=True):
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            taken.append(time.perf_counter() - start)
    return [min(taken) for taken in seconds]


def count_operations(work: Work) -> int:
    """Operations of its matrix products, convolutions and attention: two per multiplication and addition, four times as
    many of complex numbers; and of its Fourier transforms, 5 n log2 n by convention, of real numbers half of that."""
    with _Counter() as counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    # Not torch's own FlopCounterMode: it hooks every module, and a hooked layer's weights are not folded.

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in _FORMULAS:
            complex_factor = 4 if any(isinstance(x, Tensor) and x.is_complex() for x in args) else 1
            self.total += complex_factor * _FORMULAS[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        elif func._overloadpacket in _TRANSFORMS:
            whole, factor = (result, 2.5) if result.is_floating_point() else (args[0], 2.5 + 2.5 * args[0].is_complex())
            self.total += round(factor * whole.numel() * math.log2(math.prod(whole.shape[axis] for axis in args[1])))
        return result


def _attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_gradient(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient.shape, q.shape, k.shape, v.shape)


# torch 2.13 counts fused attention on GPUs alone.
_FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient,
}

_TRANSFORMS = (torch.ops.aten._fft_r2c, torch.ops.aten._fft_c2c, torch.ops.aten._fft_c2r)


def peak_memory(work: Work, device: str) -> int:
    """Bytes that it holds at most at one time, besides those that are held before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    held = most = 0
    # Each allocation and release, in the order of time; torch's public summary leaves most of them out.
    results: Any = recorded.profiler
    for event in results.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def products(work: Work, operations: int, device: str) -> Products:
    """How much of the time goes into products, given their number of operations."""
    on_gpu = device == "cuda"
    with _profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        work()
        _wait(device)
    times: Mapping[str, float] = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in recorded.key_averages()
    }
    inside = sum(taken for name, taken in times.items() if _is_product(name))
    return Products(inside / sum(times.values()), operations / (inside * 1e-6) if inside else 0.0)


def _is_product(kernel: str) -> bool:
    name = kernel.removeprefix("aten::").lower()
    if "fused" in name and "attention" not in name:  # a compiler's, of everything between two products
        return False
    return name in _OPERATIONS or any(part in name for part in _KERNELS)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def _profile(**options: Any) -> Iterator[profile]:
    """torch's profiler, without what it says on standard error whenever it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        with profile(**options) as recorded:
            yield recorded
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def forecast_cost(forecast: Callable[[], object], samples: int, device: str) -> dict[str, float]:
    """What one step of a forecast costs per sample: `gflop`, see `count_operations`, and `inference_ms`, the least of
    three times.

    Args:
        forecast: One step of some samples at once.
        samples: How many.
        device: Where it computes.
    """
    with torch.no_grad():  # in inference mode torch shows composite operations, which have no formula
        operations = count_operations(forecast)
        (seconds,) = least_times([forecast], device, repeats=3)
    return {"gflop": operations / samples / 1e9, "inference_ms": 1e3 * seconds / samples}
