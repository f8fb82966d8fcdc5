"""How a model is run: what changes its speed and memory, but not its result beyond rounding."""

import os

import torch
import torch.nn.functional as functional

from morph.model.surrogate import Surrogate

__all__ = ["ATTENTION", "check_attention", "device", "dtype", "precision", "set_execution"]

ATTENTION = {
    "flash": torch.backends.cuda.enable_flash_sdp,
    "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
    "cudnn": torch.backends.cuda.enable_cudnn_sdp,
    "math": torch.backends.cuda.enable_math_sdp,
}
"""Implementations of attention by name, and what allows each of them."""

_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}
_COMPILED_SHAPES = 1024  # torch gives up after 8; each data set needs several, for training, judging, smaller batches


def device(wanted: str) -> str:
    """ "auto" is the GPU where there is one.

    Raises:
        ValueError: The device is unknown, or this machine has none such.
    """
    has_gpu = torch.cuda.is_available()
    if wanted not in ("auto", "cpu", "cuda") or (wanted == "cuda" and not has_gpu):
        found = "cpu and cuda" if has_gpu else "cpu alone"
        raise ValueError(f"device: expected auto, cpu or cuda, of which this machine has {found}; found {wanted!r}")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and has_gpu) else "cpu"


def precision(wanted: str, device: str) -> str:
    """ "auto" is bfloat16 on a GPU that has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"


def dtype(precision: str | int) -> torch.dtype:
    """What matrix products are computed in.

    Raises:
        ValueError: No such precision.
    """
    found = _DTYPES.get(str(precision).split("-")[0])
    if found is None:
        raise ValueError(f"precision: expected 32-true, bf16-mixed, 16-mixed or 64-true, found {precision!r}")
    return found


def check_attention(wanted: str) -> None:
    """Check that there is such an implementation, on whatever device.

    Raises:
        ValueError: There is none.
    """
    if wanted not in ("auto", *ATTENTION):
        raise ValueError(f"attention: expected one of auto, {', '.join(ATTENTION)}, found {wanted!r}")


def set_execution(
    model: Surrogate,
    *,
    attention: str = "auto",
    compile: bool = False,
    activation_checkpointing: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Set how the model is run.

    Args:
        model: Changed in place; its weights and their names are not.
        attention: Implementation of attention, of the whole process: auto (the fastest one that fits) or one of
            `ATTENTION`.
        compile: Compile the stages, embedding and blocks (torch.compile), once for each shape of data.
        activation_checkpointing: Keep only the tokens between two blocks, and compute the rest again for the gradient.
        device, dtype: Where and in what the model will run; an attention that does not exist there is refused.

    Raises:
        ValueError: The attention is unknown, or does not exist for this device and precision; or the model has no
            stages.
    """
    check_attention(attention)
    for option, wanted in (("compile", compile), ("activation_checkpointing", activation_checkpointing)):
        if wanted and not model.stages:
            raise ValueError(
                f"execution.{option} works on the blocks of a Morph, and this model has none; leave it out"
            )
    for name, allow in ATTENTION.items():
        allow(attention in ("auto", name))
    try:
        if attention != "auto":
            place = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else device
            probe = torch.zeros(1, 1, 16, 64, device=place, dtype=dtype)
            functional.scaled_dot_product_attention(probe, probe, probe)
    except RuntimeError as error:
        for allow in ATTENTION.values():
            allow(True)
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(f"attention={attention} does not exist for {kind} on {device}; leave it at auto") from error
    model.activation_checkpointing = activation_checkpointing
    if compile:
        torch._dynamo.config.recompile_limit = _COMPILED_SHAPES
        torch._dynamo.config.accumulated_recompile_limit = 4 * _COMPILED_SHAPES
        # Block by block: all blocks share their code, so that a shape of data takes a fraction of the time.
        for part in model.stages:
            part.compile(dynamic=False)
