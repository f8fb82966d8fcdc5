"""Checkpoints: find, check and load what training runs, exports and the publication left."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from morph.layout import TrainedOn
from morph.model.adapter import add_adapter, merge_adapter
from morph.model.adapter_folder import Adapter, hash_of, is_adapter_folder, read_adapter, write_adapter
from morph.model.build import build, lacking
from morph.model.folder import is_model_folder, read_folder
from morph.model.morph import Morph
from morph.model.reference import infer_config, read_reference
from morph.model.stored import check_config, read_pickled
from morph.model.surrogate import Surrogate

__all__ = [
    "Checkpoint",
    "base_for",
    "base_of",
    "find_checkpoint",
    "keep_adapter",
    "load_checkpoint",
    "read_checkpoint",
    "run_of",
]


class Checkpoint(NamedTuple):
    """What a checkpoint says; a published model says nothing about its training.

    config: architecture, see `Surrogate.config`.
    weights: tensors by name.
    trained_on: context and data sets of its training; of a model that does not say, the most frames that it takes.
    options: data_dir, level and suite_seed of the training run, and `files`, the YAML files among its data sets.
    plan: what decides the order of its batches, see `MixtureDataModule.plan`, and which parts it trained.
    adapter: low-rank factors beside the weights, see `lora_config`; empty where there are none.
    base: of a fine-tuned model: `sha256` of the weights that it started from, and their `path`, see `base_of`.
    steps: optimiser steps of its training run until then; None where it does not say.
    seconds: time that these took, validation left out; None where it does not say.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    trained_on: TrainedOn
    options: Mapping[str, Any] = MappingProxyType({})
    plan: Mapping[str, Any] = MappingProxyType({})
    adapter: Mapping[str, Any] = MappingProxyType({})
    base: Mapping[str, Any] = MappingProxyType({})
    steps: int | None = None
    seconds: float | None = None

    def normalised(self, wanted: str | None = None) -> "Checkpoint":
        """With a normalisation for physical frames, and a line that says so where it is not the stored one.

        The authors of a published model normalise outside of it: unless another one is wanted, it takes the scales of
        its context.
        """
        stored = self.config["normalisation"]
        published = stored == "none" and self.config.get("filling") == "repeat" and not self.trained_on.specs
        kind = wanted or ("context" if published else stored)
        if kind != stored and not wanted:
            print(f"normalisation={kind}: a published model expects normalised frames")
        return self._replace(config={**self.config, "normalisation": kind})

    def build(self, merge: bool = False) -> Surrogate:
        """The model, in evaluation mode; with `merge`, an adapter is folded into the weights.

        It holds the tensors of `weights` themselves: training it changes them.
        """
        try:
            check_config(self.config, self.weights, self.adapter)
            with torch.device("meta"):  # the weights are put in place as they are, not copied
                model = build(self.config)
                if self.adapter and isinstance(model, Morph):
                    add_adapter(model, self.adapter)
            model.restore(self.weights)
        except (ValueError, TypeError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"checkpoint: {error}") from error
        model.trained_on = self.trained_on
        return merge_adapter(model) if merge and self.adapter and isinstance(model, Morph) else model


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """The checkpoint that a path means: itself, or the preferred one of a run's folder ("best" or "last").

    Raises:
        ValueError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise ValueError(
            f"checkpoint: there is nothing at {path}; give a .ckpt or .pth file, or the folder of a run, "
            "an export or an adapter"
        )
    order = [prefer, "last" if prefer == "best" else "best"]
    for folder in (path / "checkpoints", path):
        for name in order:
            if (folder / f"{name}.ckpt").is_file():
                return folder / f"{name}.ckpt"
    if is_model_folder(path) or is_adapter_folder(path):
        return path
    raise ValueError(
        f"checkpoint: the folder {path} holds no checkpoints/best.ckpt or checkpoints/last.ckpt, "
        "nor an export's config.json, nor an adapter's morph.json"
    )


def run_of(checkpoint: str | Path) -> Path:
    """The folder of the run that a checkpoint, or the folder itself, belongs to."""
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" else folder


def read_checkpoint(
    path: str | Path,
    config: Mapping[str, Any] | None = None,
    base: str | Path | Morph | None = None,
    weights: str | None = None,
) -> Checkpoint:
    """Read a checkpoint of a training run, the folder of an export or an adapter, or a published file; executes nothing
    that it contains.

    Args:
        path: Of any of these.
        config: What a published file of an unpublished size does not say, see `infer_config`.
        base: The model that an adapter's folder belongs to, or its path; None: it is where it was in training.
        weights: Of a training run: "averaged" over its steps (`ema`), or "trained", as the last step left them; None:
            averaged where there are such.

    Raises:
        ValueError: There is no such file, or it is none of these; names the tensor that does not fit; or `base` is
            another model than the adapter's; or it has no such weights.
    """
    if weights not in (None, "averaged", "trained"):
        raise ValueError(f"weights: expected averaged, trained or null, found {weights!r}")
    path = find_checkpoint(path)
    adapted = path.is_dir() and is_adapter_folder(path)
    if weights and path.is_dir():
        raise ValueError(f"weights: the folder {path} holds the weights that it was written with; leave it out")
    if base is not None and not adapted:
        raise ValueError(f"checkpoint: {path} is a whole model, no adapter's folder; leave base out")
    try:
        if adapted:
            read = _read_adapted(path, base)
        elif path.is_dir():
            stored, tensors = read_folder(path)
            if missing := lacking(stored):
                raise ValueError(f"its config.json is not that of a model: it lacks {', '.join(missing)}")
            trained_on = stored.pop("trained_on", None)
            read = Checkpoint(
                _with_filling(stored),
                tensors,
                TrainedOn.from_dict(trained_on) if trained_on else TrainedOn(stored["capacity"]["max_context"]),
            )
        else:
            contents = read_pickled(path)
            if state := _published_state(contents):
                if weights:
                    raise ValueError(f"a published model has one kind of weights; leave weights={weights} out")
                full = infer_config(state, config)
                reference = read_reference(state, full)
                trained_on = TrainedOn(full["max_ar"])
                return Checkpoint(reference.config, reference.weights, trained_on, adapter=reference.adapter)
            read = _read_run(contents, weights)
        if config:
            raise ValueError("it says itself how it is built; config is for published files of unpublished sizes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else f"its configuration is damaged: {error!r}"
        raise ValueError(f"checkpoint: {path}: {reason}") from error
    return read


def load_checkpoint(
    path: str | Path,
    *,
    base: str | Path | Morph | None = None,
    merge: bool = False,
    config: Mapping[str, Any] | None = None,
    weights: str | None = None,
) -> Surrogate:
    """The model of a checkpoint, ready to forecast: a `Morph`, or a baseline.

    Args:
        path: A .ckpt file or the folder of a run (its best checkpoint, else its last), the folder of an export
            (config.json and safetensors), or a published .pth file; one with LoRA factors gives a model with peft's
            layers.  Published models take and return frames that are normalised already.  An adapter's folder gives the
            fine-tuned model.
        base: Of an adapter's folder, see `read_checkpoint`.  Models of several adapters that are given the same model
            here share its weights in memory: each can be used at any time, and none changes another.
        merge: Fold low-rank factors into the weights that they adapt.
        config: Of a published file whose size was not published: heads and heads_xa, and what else differs.
        weights: "averaged" or "trained", of a run that keeps both, see `read_checkpoint`.

    Raises:
        ValueError: See `read_checkpoint`.
    """
    return read_checkpoint(path, config, base, weights).build(merge)


def base_of(model: Checkpoint | Surrogate, path: str | Path, base: str | Path | None = None) -> dict[str, str]:
    """What a fine-tuned model remembers of the one that it started from, see `Checkpoint.base`.

    Args:
        model: What it started from.
        path: Where that is.
        base: If it is an adapter's folder, where its own base was, unless it is where it says.
    """
    weights = model.state_dict() if isinstance(model, Surrogate) else model.weights
    places = {"path": path, **({} if base is None else {"base": base})}
    hashed = {"sha256": hash_of(weights, model.adapter)}
    return hashed | {name: str(Path(place).absolute()) for name, place in places.items()}


def keep_adapter(folder: Path, checkpoint: Checkpoint, base: Path | Checkpoint | None = None) -> list[Path]:
    """Write what fine-tuning added to its base as an adapter's folder, see `morph.model.adapter_folder`.

    Args:
        folder: Where.
        checkpoint: Of a fine-tuning run.
        base: What it started from; None: it is where it was.

    Raises:
        ValueError: The checkpoint is not of fine-tuning, or the base is not there or another one.
    """
    if not checkpoint.base:
        raise ValueError("it was not fine-tuned from another model, so there is nothing that an adapter could hold")
    moved = {"path": str(base.absolute())} if isinstance(base, Path) else {}
    about = {
        "model": dict(checkpoint.config),
        "base": dict(checkpoint.base) | moved,
        "trained_on": checkpoint.trained_on.to_dict(),
        "options": dict(checkpoint.options),
        "plan": dict(checkpoint.plan),
    }
    weights = _base_weights(checkpoint.base, base)
    return write_adapter(folder, Adapter(about, dict(checkpoint.adapter), dict(checkpoint.weights)), weights)


def _read_adapted(folder: Path, base: str | Path | Morph | None) -> Checkpoint:
    about, adapter, own = read_adapter(folder)
    weights = _base_weights(about["base"], base)
    device = next(iter(weights.values())).device
    for name in adapter.get("rank", {}):
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in weights:
                weights[f"{name}.base_layer.{kind}"] = weights.pop(f"{name}.{kind}")
    return Checkpoint(
        about["model"],
        weights | {name: value.to(device) for name, value in own.items()},
        TrainedOn.from_dict(about["trained_on"]),
        _options(about.get("options", {})),
        about.get("plan", {}),
        adapter,
        about["base"],
    )


def base_for(path: Path, base: str | Path | None) -> str | Path | None:
    """Of several checkpoints that are named beside one base: that base for an adapter's folder, None for another."""
    return base if path.is_dir() and is_adapter_folder(path) else None


def _read_base(where: str, origin: Mapping[str, Any]) -> Checkpoint:
    further = origin.get("base")
    return read_checkpoint(where, base=base_for(Path(where), further) if further and Path(further).exists() else None)


def _base_weights(origin: Mapping[str, Any], base: str | Path | Morph | Checkpoint | None) -> dict[str, Tensor]:
    """The weights of the model that fine-tuning started from, an adapter merged.

    Raises:
        ValueError: It is not there, or another one.
    """
    where = "base" if isinstance(base, Morph | Checkpoint) else str(base or origin["path"])
    if base is None and not Path(where).exists():
        raise ValueError(
            f"the model that it was fine-tuned from is no longer at {where}; say where it is now with base=<path>"
        )
    known = base if isinstance(base, Morph | Checkpoint) else _read_base(where, origin)
    found = base_of(known, where)["sha256"]
    if found != origin["sha256"]:
        raise ValueError(
            f"it was fine-tuned from a model whose weights have the SHA-256 {origin['sha256'][:16]}... "
            f"(then at {origin['path']}), and those of {where} have {found[:16]}...; give the right one as base=<path>"
        )
    if not known.adapter:
        return dict(known.state_dict() if isinstance(known, Morph) else known.weights)
    merged = merge_adapter(deepcopy(known)) if isinstance(known, Morph) else known.build(merge=True)
    return dict(merged.state_dict())


def _with_filling(config: Mapping[str, Any]) -> dict[str, Any]:
    """A Morph's from before there was a choice filled with zeros."""
    return dict(config) if "kind" in config else {"filling": "zero", **config}


def _options(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a checkpoint says of its data, which decides what is opened.

    Raises:
        ValueError: It is no such thing.
    """
    files = stored.get("files", {})
    plain = {key: value for key, value in stored.items() if key != "files"}
    texts = [*plain.values(), *files.values()]
    if not all(isinstance(value, str | int) and "${" not in str(value) for value in texts):
        raise ValueError(f"its options should be texts and numbers without interpolations, found {texts!r}")
    return stored


def _published_state(contents: Any) -> Mapping[str, Tensor] | None:
    """The state dictionary of a published file, bare or beside its optimiser's; None of another file."""
    state = contents.get("model_state_dict", contents) if isinstance(contents, dict) else None
    if isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values()):
        return state
    return None


def _read_run(contents: Any, weights: str | None) -> Checkpoint:
    if not isinstance(contents, dict) or "morph" not in contents or "state_dict" not in contents:
        found = ", ".join(map(str, list(contents)[:6])) if isinstance(contents, dict) else type(contents).__name__
        raise ValueError(
            "it was not written by morph.train, which leaves morph and state_dict, nor is it a published model's, "
            f"which has model_state_dict; found {found}"
        )
    # With ema=, `state_dict` holds the averaged weights, and this the trained ones.
    trained = contents.get("current_model_state")
    if weights == "averaged" and trained is None:
        raise ValueError("its run kept no average of the weights (ema=null); leave weights=averaged out")
    state = contents["state_dict"] if weights != "trained" or trained is None else trained
    about = contents["morph"]
    try:
        return Checkpoint(
            _with_filling(about["model"]),
            {key.removeprefix("model."): value for key, value in state.items()},
            TrainedOn.from_dict(about),
            _options(about["options"]),
            about["plan"],
            about.get("adapter", {}),
            about.get("base", {}),
            steps=contents.get("global_step"),
            seconds=about.get("seconds"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks what morph.train writes: {error!r}") from error
