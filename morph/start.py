"""What a training run starts from: a new model, or that of a checkpoint, as it is or made ready for fine-tuning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morph.checkpoint import Checkpoint, base_of, find_checkpoint, read_checkpoint
from morph.command import defaults, given
from morph.data.catalogue import find_datasets, own_files
from morph.data.module import MixtureDataModule
from morph.finetune import grow, lora_layers, renew
from morph.model.adapter import add_adapter
from morph.model.morph import Morph
from morph.model.surrogate import Capacity, Surrogate

__all__ = ["Start", "open_data", "starting_checkpoint", "starting_model"]

_NORMALISATION = "model.normalisation="
# What is new in a grown model is trained, also where the level leaves its part alone, at the rates of level 3.  (A
# position table that has grown holds nothing new.)
_OF_GROWTH = {"max_components": {"components", "decoder"}, "max_fields": {"decoder"}}
_OPTIONS = ("lora", "train", "last_blocks", "renew")
_LORA = ("attention", "mlp", "alpha", "dropout", "dora", "rslora")
_RATES = {"lr": 1e-4, "weight_decay": 1e-5}


class Start(NamedTuple):
    """What `Forecaster` is given.

    model: in training mode, with its adapter.
    finetune: what is trained, None for everything.
    base: of fine-tuning: what it started from.
    needs: paths of the checkpoints without which the run's own cannot be made or used.
    """

    model: Surrogate
    finetune: dict[str, Any] | None = None
    base: dict[str, str] | None = None
    needs: tuple[str, ...] = ()


def starting_checkpoint(config: DictConfig) -> Checkpoint | None:
    """What the run's configuration (checkpoint, base) starts from, None for a new model.

    Raises:
        ValueError: The checkpoint cannot be read, or an option needs one.
    """
    if config.checkpoint is None:
        for option in ("finetune", "grow", "base"):
            if config.get(option):
                raise ValueError(
                    f"{option} needs a model to start from: give checkpoint=<run's folder, .ckpt or .pth file, export>"
                )
        if config.window.context is None:
            raise ValueError("window.context: expected a number of frames, found null, which needs checkpoint=")
        return None
    if config.data is None:
        raise ValueError("data is needed: give what to train on, such as data=my.yaml or data=my.nc")
    checkpoint = read_checkpoint(config.checkpoint, base=config.base).normalised(_normalisation(config))
    if checkpoint.adapter:
        print(f"{config.checkpoint}: its adapter is merged into the weights")
    return checkpoint


def open_data(plain: Mapping[str, Any], batches_per_step: int = 1) -> MixtureDataModule:
    """The data of a run's configuration, generated where they are missing, and open.

    Args:
        plain: The configuration.
        batches_per_step: Of all processes.

    Raises:
        ValueError: All that can be wrong with them.
    """
    options: dict[str, Any] = {
        "data_dir": str(Path(plain["data_dir"]).absolute()),
        "level": plain["level"],
        "suite_seed": plain["suite_seed"],
    }
    datasets = find_datasets(plain["data"], options)
    data = MixtureDataModule(
        datasets,
        batches_per_step=batches_per_step,
        batch_size=plain["batch_size"],
        num_trajectories=plain["num_trajectories"],
        seed=plain["seed"],
        options={**options, "files": own_files(plain["data"])},
        context=plain["window"]["context"],
        target=plain["window"]["target"] + plain["objective"]["pushforward"],
        **plain["loader"],
        **plain["mixture"],
    )
    data.prepare_data()
    data.setup("fit")
    return data


def starting_model(config: DictConfig, checkpoint: Checkpoint | None, data: MixtureDataModule) -> Start:
    """The model of a run's configuration (model, checkpoint, finetune, grow).

    Of a checkpoint's model, model.normalisation alone can be chosen anew.

    Args:
        config: Of the run.
        checkpoint: From `starting_checkpoint`.
        data: After its `setup`.

    Raises:
        ValueError: An option contradicts the checkpoint or would be ignored, or the data exceed what its model takes.
    """
    if checkpoint is None:
        return Start(_new_model(config, data))
    found = checkpoint.build(merge=True)
    if not isinstance(found, Morph):
        for option in ("finetune", "grow"):
            if config.get(option):
                raise ValueError(
                    f"{option} is for a Morph, and {config.checkpoint} holds a {checkpoint.config['kind']}; "
                    "leave it out: without it all of the model is trained further"
                )
        return Start(found.train(), needs=_needs(config, checkpoint))
    model = found
    stated: Any = OmegaConf.to_container(config.finetune, resolve=True) if config.get("finetune") else None
    base = base_of(checkpoint, find_checkpoint(config.checkpoint), config.base) if stated else None
    needs = _needs(config, checkpoint)
    before = model.capacity
    model = _grown(model, config, data)
    if stated is None:
        return Start(model.train(), needs=needs)
    finetune: dict[str, Any] = {"lora": None, "last_blocks": None, "renew": None, **stated}
    _check(finetune)
    finetune["train"] = dict(_rates(finetune))
    if "all" not in finetune["train"]:
        finetune["train"] |= {part: dict(_RATES) for part in _grown_parts(before, model.capacity) - _covered(finetune)}
    if finetune["renew"] is not None:
        model = renew(model, finetune["renew"])
        base = None if finetune["renew"] == "all" else base
    if finetune["lora"]:
        options = finetune["lora"]
        rank = lora_layers(model, options, data.specs.values(), data.context)
        alpha = {name: 2 * r if options.get("alpha") is None else options["alpha"] for name, r in rank.items()}
        kinds = {key: options.get(key, False) for key in ("dora", "rslora")}
        add_adapter(model, {"rank": rank, "alpha": alpha, "dropout": options.get("dropout", 0.0), **kinds})
    elif "lora" in finetune["train"]:
        raise ValueError("finetune.train.lora: there are no factors to train; give finetune.lora, or leave it out")
    return Start(model.train(), finetune, base, needs)


def _new_model(config: DictConfig, data: MixtureDataModule) -> Surrogate:
    """With what the configuration leaves to the data.

    Raises:
        ValueError: It takes one number of dimensions, and the data has several.
    """
    dimensions = {name: len(spec.axes) for name, spec in data.specs.items()}
    capacity = {
        "max_context": data.context,
        "max_fields": max(spec.num_fields for spec in data.specs.values()),
        "max_components": max(spec.num_components for spec in data.specs.values()),
    }
    of_data: dict[str, Any] = {"dimensions": next(iter(dimensions.values())), "capacity": capacity}
    unstated = {option: value for option, value in of_data.items() if config.model.get(option, option) is None}
    if "dimensions" in unstated and len(set(dimensions.values())) > 1:
        found = ", ".join(f"{name} is {count}-D" for name, count in dimensions.items())
        raise ValueError(
            f"model.dimensions: this model takes data of one number of dimensions, and {found}; train one for each"
        )
    model: Surrogate = instantiate(config.model, **unstated)
    return model


def _needs(config: DictConfig, checkpoint: Checkpoint) -> tuple[str, ...]:
    return tuple(map(str, filter(None, (config.checkpoint, config.base, checkpoint.base.get("path")))))


def _grown(model: Morph, config: DictConfig, data: MixtureDataModule) -> Morph:
    """The model, or one that takes all the data.

    Raises:
        ValueError: The data exceed what the model takes, and `grow` was not asked for.
    """
    needed = {
        "max_context": {"window.context": data.context},
        "max_fields": {f"data set {name!r}": spec.num_fields for name, spec in data.specs.items()},
        "max_components": {f"data set {name!r}": spec.num_components for name, spec in data.specs.items()},
    }
    exceeded = {}
    for name, counts in needed.items():
        what, count = max(counts.items(), key=lambda item: item[1])
        most = getattr(model.capacity, name)
        noun = "context frames" if name == "max_context" else f"{name.removeprefix('max_')}"
        if count > most and not config.grow:
            raise ValueError(
                f"{what} has {count} {noun}, the model of {config.checkpoint} takes at most {most}; "
                "let it grow with grow=true, which keeps what it does now"
            )
        if count > most:
            exceeded[name] = count
    return grow(model, **exceeded) if exceeded else model


def _check(finetune: Mapping[str, Any]) -> None:
    """Refuse what would be ignored.

    Raises:
        ValueError: An option is unknown, or needs a part to be trained that is not.
    """
    for where, options, known in (("finetune", finetune, _OPTIONS), ("finetune.lora", finetune["lora"] or {}, _LORA)):
        if unknown := set(options) - set(known):
            raise ValueError(f"{where}: expected {', '.join(known)}, found {', '.join(sorted(map(str, unknown)))}")
    trained = set(finetune.get("train") or ())
    if finetune["lora"] and not trained & {"lora", "all"}:
        raise ValueError("finetune.lora: its factors are not trained; give finetune.train.lora, or finetune.lora=null")
    if finetune["renew"] == "decoder" and not trained & {"decoder", "all"}:
        raise ValueError(
            "finetune.renew: a new decoder that is not trained forecasts nothing; give finetune.train.decoder"
        )


def _grown_parts(before: Capacity, after: Capacity) -> set[str]:
    grown = [parts for name, parts in _OF_GROWTH.items() if getattr(after, name) > getattr(before, name)]
    return set[str]().union(*grown)


def _covered(finetune: Mapping[str, Any]) -> set[str]:
    parts = set(finetune["train"])
    return parts | ({"components"} if "encoder" in parts else set())


def _rates(finetune: Mapping[str, Any]) -> Mapping[str, Any]:
    """`finetune.train`, checked.

    Raises:
        ValueError: It is no mapping of parts to rates, or an option of all rates is given and would be ignored.
    """
    train = finetune.get("train")
    if not isinstance(train, Mapping) or not train:
        raise ValueError(f"finetune.train: expected parts and their rates, norms: {{lr: 1e-4}}, found {train!r}")
    for part, rates in train.items():
        if not isinstance(rates, Mapping | None) or set(rates or ()) - {"lr", "weight_decay"}:
            raise ValueError(f"finetune.train.{part}: expected lr and weight_decay, found {rates!r}")
    for group, key, option in (("optimizer", "lr", "optimizer.lr"), ("weight_decay", "weight_decay", "weight_decay")):
        chosen = any(entry.lstrip("+").startswith(f"{option}=") for entry in given(group))
        if chosen and all(key in (rates or ()) for rates in train.values()):
            raise ValueError(
                f"{option} has no effect: with finetune= it is that of each part, "
                f"{', '.join(f'finetune.train.{part}.{key}' for part in train)}"
            )
    return train


def _normalisation(config: DictConfig) -> str | None:
    """The one option of `model` that counts beside a checkpoint, None where it was not chosen.

    Raises:
        ValueError: The command line or an experiment chooses others, which would be ignored.
    """
    stated = [option.lstrip("+") for option in given("model")]
    if ignored := [option for option in stated if not option.startswith(_NORMALISATION)]:
        raise ValueError(f"{', '.join(ignored)}: with checkpoint= the model is that of the checkpoint; leave this out")
    default = defaults("train").model
    kind: str = config.model.normalisation
    if {**config.model, "normalisation": None} != {**default, "normalisation": None}:
        raise ValueError(
            "an experiment chooses the model, which with checkpoint= is that of the checkpoint; leave one out"
        )
    return kind if stated or kind != default.normalisation else None
