"""What a training run starts from: a new model, or that of a checkpoint."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from morph.checkpoint import read_checkpoint
from morph.command import defaults, given
from morph.finetune import grow_context
from morph.model.morph import Morph

__all__ = ["starting_model"]

_NORMALISATION = "model.normalisation="


def starting_model(config: DictConfig) -> Morph:
    """The model of a run's configuration (model, checkpoint, grow_context, window.context), in training mode.

    Of a checkpoint's model, model.normalisation alone can be chosen anew.

    Raises:
        ValueError: An option contradicts the checkpoint or would be ignored, or the checkpoint cannot be read.
    """
    context = config.window.context
    if config.checkpoint is None:
        if config.grow_context or config.train_only is not None:
            option = "grow_context" if config.grow_context else "train_only"
            raise ValueError(
                f"{option} needs a model to start from: give checkpoint=<run's folder, .ckpt or .pth file, or export>"
            )
        model: Morph = instantiate(config.model)
        return model
    checkpoint = read_checkpoint(config.checkpoint).normalised(_normalisation(config))
    if checkpoint.adapter:
        print(f"{config.checkpoint}: its adapter is merged into the weights")
    model = checkpoint.build(merge=True)
    most = model.capacity.max_context
    if context > most and not config.grow_context:
        raise ValueError(
            f"window.context={context}: the model of {config.checkpoint} takes at most {most} context frames; "
            "grow it with grow_context=true, as +experiment=pretrain_ar does"
        )
    if context > most:
        model = grow_context(model, context)
    return model.train()


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
