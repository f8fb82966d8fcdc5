"""Products of weights instead of products of activations: which layers allow it, and what they become."""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registry

__all__ = ["Affine", "affine", "compose", "in_full_precision", "is_plain"]

Affine = tuple[Tensor, Tensor]
"""Weight (outputs, inputs) and bias (outputs,) of a linear map."""

_LAYERS = (nn.Linear, nn.Conv3d, nn.ModuleList)


def is_plain(*modules: nn.Module) -> bool:
    """Whether using the weights of these modules' linear and convolutional layers is the same as calling the modules.

    Not so for a layer that was replaced by one of another class (an adapter, a quantised or parametrised layer) or by
    one without a bias, whose weight is no plain tensor, or that carries a hook: those are called, so that whatever was
    added takes effect.
    """
    return not registry._has_any_global_hook() and all(_is_plain(part) for whole in modules for part in whole.modules())


def _is_plain(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return False
    if type(module) is nn.Linear and module.bias is None:
        return False
    known = type(module) in _LAYERS or type(module).__module__.startswith("morph.model.")
    parameters = (p for p in module._parameters.values() if p is not None)
    return known and "forward" not in vars(module) and all(type(p) in (nn.Parameter, Tensor) for p in parameters)


def affine(layer: nn.Linear) -> Affine:
    """Weight and bias of a layer."""
    return layer.weight, layer.bias


def compose(outer: Affine, inner: Affine) -> Affine:
    """Weight and bias of outer(inner(x))."""
    with in_full_precision(outer[0]):
        return outer[0] @ inner[0], torch.mv(outer[0], inner[1]) + outer[1]


def in_full_precision(like: Tensor) -> torch.autocast:
    """Context in which products of weights keep the weights' precision, also where activations have less."""
    return torch.autocast(like.device.type, enabled=False)
