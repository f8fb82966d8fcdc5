"""Low-rank adapters on the Linear layers of a model, by peft."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from morph.model.morph import Morph

__all__ = ["add_adapter", "merge_adapter"]


def add_adapter(model: Morph, adapter: Mapping[str, Any]) -> Morph:
    """Give Linear layers the factors of LoRA, in place: output + (alpha / rank) B A dropout(x).

    What is not in the adapter is frozen, as peft does.

    Args:
        adapter: `rank` and `alpha`, by the name of the layer, and `dropout`.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds

    rank, alpha = dict(adapter["rank"]), dict(adapter["alpha"])
    config = LoraConfig(
        target_modules=list(rank), rank_pattern=rank, alpha_pattern=alpha, lora_dropout=adapter["dropout"]
    )
    inject_adapter_in_model(config, model)
    return model


def merge_adapter(model: Morph) -> Morph:
    """Fold an adapter's factors into the weights that they adapt, in place; plain layers remain, none frozen."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            plain = layer.get_base_layer()
            assert isinstance(plain, nn.Linear), "the one kind of layer that add_adapter adapts"
            model.set_submodule(name, plain)
    if hasattr(model, "peft_config"):  # peft's note of what it adapted
        del model.peft_config
    return model.requires_grad_(True)
