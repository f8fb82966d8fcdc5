"""`python -m morph.replay`: compute the loss of a saved batch again, and find where it stops being finite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from morph.checkpoint import find_checkpoint, read_checkpoint
from morph.command import command
from morph.execution import device as choose_device
from morph.execution import dtype as dtype_of
from morph.layout import Batch
from morph.loss import batch_loss, locate
from morph.model.surrogate import Surrogate
from morph.objective import Objective
from morph.saved_batch import read_batch

__all__ = ["find_nonfinite"]

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@command("replay")
def main(config: DictConfig) -> None:
    """Read both, compute, and say what was found.

    Raises:
        ValueError: The file is no saved batch, the checkpoint no model, or an option is unknown.
    """
    path = Path(config.batch)
    saved = read_batch(path)
    checkpoint = _model_of(path) if config.checkpoint is None else find_checkpoint(config.checkpoint, prefer="last")
    trained = "trained" if checkpoint.suffix == ".ckpt" else None
    stored = read_checkpoint(checkpoint, weights=config.weights or trained)
    precision = config.precision or saved.precision
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, found {precision!r}")
    device = choose_device(config.device)
    model = stored.build().train().to(device)
    batch: Batch = move_data_to_device(saved.batch, torch.device(device))
    if precision == "64-true":
        model, batch = model.double(), batch._replace(context=batch.context.double(), target=batch.target.double())
    print(f"{path}, step {saved.step}, precision {saved.precision}: {saved.fault}")
    print(f"{checkpoint}: after {'an unknown number of' if stored.steps is None else stored.steps} steps")
    for line in find_nonfinite(model, batch, saved.seed, precision, Objective.of_plan(stored.plan)):
        print(line)


def _model_of(batch: Path) -> Path:
    """The model as it was before the step, else the run's last one."""
    run = batch.resolve().parent.parent
    step = "_".join(batch.stem.split("_")[:2])
    before = batch.with_name(f"{step}.ckpt")
    try:
        return before if before.is_file() else find_checkpoint(run, prefer="last")
    except ValueError as error:
        raise ValueError(
            f"checkpoint: {batch} does not lie in the folder of a run; say which model, checkpoint=<run>"
        ) from error


def find_nonfinite(
    model: Surrogate, batch: Batch, seed: int, precision: str = "32-true", objective: Objective | None = None
) -> Iterator[str]:
    """What there is to say of a batch, line by line.

    Args:
        model: In training mode; its gradients are replaced.
        batch: On the model's device.
        seed: Of dropout, and of what the objective draws.
        precision: See `morph.execution.dtype`; a mixed one computes products in it.
        objective: Of the run.
    """
    kind = model.device.type

    def loss() -> Tensor:
        torch.manual_seed(seed)
        with torch.autocast(kind, dtype_of(precision), enabled=precision.endswith("mixed")):
            return batch_loss(model, batch, objective or Objective())

    found: list[str] = []
    with _watched(model, found.append), torch.no_grad():
        value = loss()
    yield f"loss: {value.item():.6g}"
    if found:
        yield f"the first part of the model whose output is not finite: {found[0]}"
    elif not torch.isfinite(value):
        yield "every part of the model has a finite output; the loss overflows or the target is not finite"
    if not torch.isfinite(value):
        yield locate(batch, "the batch", "loss")
        return
    model.zero_grad()
    loss().backward()
    lost = [name for name, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if lost:
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        yield f"weights whose gradient is not finite: {', '.join(lost[:8])}{more}"
    elif not found:
        yield "loss and gradient are finite here: another model, precision or device than in the run"


@contextmanager
def _watched(model: nn.Module, tell: Callable[[str], Any]) -> Iterator[None]:
    """Tells each part whose output is not finite, and whether its input was, as it is done: inner parts first."""

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not _finite(output):
                source = "of finite input" if _finite(inputs) else "its input is not finite either"
                tell(f"{name or 'the model itself'} ({type(module).__name__}, {source})")

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _finite(values: Any) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in tree_leaves(values) if isinstance(value, Tensor))


if __name__ == "__main__":
    main()
