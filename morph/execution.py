"""How a model is run, which changes its speed and memory but not its result beyond rounding."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from morph.model.morph import Morph

__all__ = ["ATTENTION", "choose_device", "choose_precision", "prepare"]

ATTENTION = {
    "flash": (torch.backends.cuda.enable_flash_sdp, SDPBackend.FLASH_ATTENTION),
    "efficient": (torch.backends.cuda.enable_mem_efficient_sdp, SDPBackend.EFFICIENT_ATTENTION),
    "cudnn": (torch.backends.cuda.enable_cudnn_sdp, SDPBackend.CUDNN_ATTENTION),
    "math": (torch.backends.cuda.enable_math_sdp, SDPBackend.MATH),
}
_COMPILED_SHAPES = 64  # kept; torch gives up compiling after 8, fewer than a mixture's data sets need
