"""What a training run starts from: a new model, or that of a checkpoint."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from morph.checkpoint import load_checkpoint
from morph.command import given
from morph.finetune import grow_context
from morph.model.morph import Morph

__all__ = ["starting_model"]


def starting_model(config: DictConfig) -> Morph:
    """The model of a run's configuration (model, checkpoint, grow_context, window.context), in training mode.

    Raises:
        ValueError: An option contradicts the checkpoint or would be ignored, or the checkpoint cannot be read.
    """
    context = config.window.context
    if config.checkpoint is None:
        if config.grow_context or config.train_only is not None:
            option = "grow_context" if config.grow_context else "train_only"
            raise ValueError(f"{option} needs a model to start from: give checkpoint=<a run's folder or a .ckpt file>")
        model: Morph = instantiate(config.model)
        return model
    if stated := given("model"):
        raise ValueError(f"{', '.join(stated)}: with checkpoint= the model is that of the checkpoint; leave this out")
    model = load_checkpoint(config.checkpoint)
    most = model.capacity.max_context
    if context > most and not config.grow_context:
        raise ValueError(
            f"window.context={context}: the model of {config.checkpoint} takes at most {most} context frames; "
            "grow it with grow_context=true, as +experiment=pretrain_ar does"
        )
    if context > most:
        model = grow_context(model, context)
    return model.train()
