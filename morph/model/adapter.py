"""Low-rank adapters on the Linear layers of a model, by peft (LoRA, arXiv 2106.09685)."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from morph.model.dropout import Dropout
from morph.model.morph import Morph

__all__ = ["add_adapter", "lora_config", "merge_adapter"]


def lora_config(adapter: Mapping[str, Any]) -> Any:
    """peft's configuration of an adapter.

    Args:
        adapter: `rank` and `alpha`, by the name of the layer, and `dropout`; `dora` (arXiv 2402.09353) and `rslora`
            (arXiv 2312.03732), which divides alpha by the root of the rank, False unless given.
    """
    from peft import LoraConfig  # takes seconds

    rank, alpha = dict(adapter["rank"]), dict(adapter["alpha"])
    first = next(iter(rank))
    return LoraConfig(
        r=rank[first],
        lora_alpha=alpha[first],
        target_modules=list(rank),
        rank_pattern=rank,
        alpha_pattern=alpha,
        lora_dropout=adapter["dropout"],
        use_dora=adapter.get("dora", False),
        use_rslora=adapter.get("rslora", False),
    )


def add_adapter(model: Morph, adapter: Mapping[str, Any]) -> Morph:
    """Give Linear layers the factors of LoRA, in place: output + (alpha / rank) B A dropout(x).

    B is zero at first, so nothing changes until it is trained.  What is not in the adapter is frozen, as peft does.

    Args:
        model: A plain one.
        adapter: See `lora_config`.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    inject_adapter_in_model(lora_config(adapter), model)
    if adapter["dropout"]:
        for layer in model.modules():
            if isinstance(layer, LoraLayer):  # its inputs are as large as the tokens, and random numbers are slow
                layer.lora_dropout["default"] = Dropout(adapter["dropout"])
    model.adapter = dict(adapter)
    return model


def merge_adapter(model: Morph) -> Morph:
    """Fold an adapter's factors into the weights that they adapt; plain layers remain, none frozen.

    The layers are replaced in place, and their weights by new ones: another model that shares them keeps its own.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            plain = layer.get_base_layer()
            assert isinstance(plain, nn.Linear), "the one kind of layer that add_adapter adapts"
            model.set_submodule(name, plain)
    if hasattr(model, "peft_config"):  # peft's note of what it adapted
        del model.peft_config
    model.adapter = {}
    return model.requires_grad_(True)
