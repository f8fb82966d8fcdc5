"""What fine-tuning adds to a model as a folder: peft's own format, and beside it what peft does not know.

adapter_config.json and adapter_model.safetensors are peft's, and `peft.PeftModel.from_pretrained` reads them; they are
absent where no low-rank factors were trained.  morph.json says the architecture, the data, and the hash of the model
that it belongs to; morph.safetensors holds the weights besides the factors that differ from that model's.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from morph.model.adapter import lora_config
from morph.model.folder import read_json, read_tensors

__all__ = ["Adapter", "hash_of", "is_adapter_folder", "read_adapter", "write_adapter"]

_ABOUT, _WEIGHTS = "morph.json", "morph.safetensors"
_PEFT_ABOUT, _PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.*)\.lora_(?:(A|B)\.default\.weight|(magnitude_vector)\.default\.weight)")
_STORED = re.compile(r"(.*)\.lora_(?:(A|B)\.weight|(magnitude_vector))")
_NEEDED = ("model", "base", "trained_on")


class Adapter(NamedTuple):
    """What an adapter's folder says.

    about: `model`, the architecture; `base`, its hash (sha256) and where it was; `trained_on`, see `TrainedOn`; and
        what a checkpoint says besides.
    adapter: See `morph.model.adapter.lora_config`; {} without low-rank factors.
    weights: The factors and the other weights that differ from the base's, by their names in a model with the adapter.
    """

    about: dict[str, Any]
    adapter: dict[str, Any]
    weights: dict[str, Tensor]


def hash_of(weights: Mapping[str, Tensor], adapter: Mapping[str, Any]) -> str:
    """SHA-256 of names, shapes and values: the same for a run's checkpoint, an export and the published file.

    Of a model with an adapter as it is stored, for what merging gives depends on the processor in the last bit.
    """
    digest = hashlib.sha256()
    if adapter:
        kinds = {key: bool(adapter.get(key)) for key in ("dora", "rslora")}
        scales = {key: {name: float(value) for name, value in adapter[key].items()} for key in ("rank", "alpha")}
        digest.update(json.dumps({**kinds, **scales}, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter, whole or not."""
    return (folder / _ABOUT).is_file() or (folder / _PEFT_ABOUT).is_file()


def write_adapter(folder: Path, adapter: Adapter, base: Mapping[str, Tensor]) -> list[Path]:
    """Write an adapter whole or not at all, in place of one that is there; other files stay.

    Args:
        folder: Made where it is missing.
        adapter: `weights` may hold all weights of the model: those that are the base's are left out.
        base: Weights of the plain model that it belongs to.

    Returns:
        The files.
    """
    factors, others = {}, {}
    for name, value in adapter.weights.items():
        if found := _FACTOR.fullmatch(name):
            layer, factor, magnitude = found.groups()
            stored = f"{_PREFIX}{layer}.lora_{f'{factor}.weight' if factor else magnitude}"
            factors[stored] = value.detach().cpu().contiguous()
            continue
        there = base.get(name.replace(".base_layer.", "."))
        if there is None or there.shape != value.shape or not torch.equal(there.cpu(), value.cpu()):
            others[name] = value.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        new = Path(unfinished)
        save_file(others, new / _WEIGHTS)
        if adapter.adapter:
            save_file(factors, new / _PEFT_WEIGHTS, {"format": "pt"})
            config = lora_config(adapter.adapter)
            config.base_model_name_or_path = adapter.about["base"]["path"]
            config.inference_mode = True
            config.save_pretrained(str(new))
        about = {**adapter.about, "factors": len(factors)}
        (new / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        # All is written; what is left is renaming.  Without what it is there is no adapter: that goes first and comes
        # last.
        for name in (_ABOUT, _PEFT_ABOUT, _PEFT_WEIGHTS, _WEIGHTS):
            (folder / name).unlink(missing_ok=True)
        for path in new.iterdir():
            path.chmod((new / _ABOUT).stat().st_mode)  # safetensors makes its files private
        files = sorted(new.iterdir(), key=lambda path: (path.name == _ABOUT, path.name))
        return [path.replace(folder / path.name) for path in files]


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter; executes nothing that the files contain.

    Raises:
        ValueError: A file is missing, truncated or something else.
    """
    if not (folder / _ABOUT).is_file():
        raise ValueError(
            f"{folder} has peft's files and no {_ABOUT}, which says what model they belong to; "
            "it is no adapter of morph.train, or the file was lost"
        )
    about = read_json(folder / _ABOUT)
    if missing := [key for key in _NEEDED if not isinstance(about.get(key), dict)]:
        raise ValueError(f"{folder / _ABOUT} lacks {', '.join(missing)}")
    weights = read_tensors(folder / _WEIGHTS)
    if not about.get("factors"):
        return Adapter(about, {}, weights)
    config = read_json(folder / _PEFT_ABOUT)
    for stored, value in read_tensors(folder / _PEFT_WEIGHTS).items():
        found = _STORED.fullmatch(stored.removeprefix(_PREFIX))
        if found is None:
            raise ValueError(f"{folder / _PEFT_WEIGHTS}: expected the factors of LoRA or DoRA, found {stored}")
        layer, factor, magnitude = found.groups()
        weights[f"{layer}.lora_{factor or magnitude}.default.weight"] = value
    try:
        if not isinstance(config["target_modules"], list):
            raise TypeError(f"target_modules should be a list of layers, found {config['target_modules']!r}")
        rank, alpha = config["rank_pattern"], config["alpha_pattern"]
        adapter = {
            "rank": {name: rank.get(name, config["r"]) for name in sorted(config["target_modules"])},
            "alpha": {name: alpha.get(name, config["lora_alpha"]) for name in sorted(config["target_modules"])},
            "dropout": config["lora_dropout"],
            "dora": config.get("use_dora", False),
            "rslora": config.get("use_rslora", False),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / _PEFT_ABOUT} is not peft's configuration of LoRA: {error!r}") from error
    return Adapter(about, adapter, weights)
