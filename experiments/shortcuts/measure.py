"""What each exact shortcut of the model brings: a training step with all of them, and with each one taken away.

    python -m experiments.shortcuts.measure            # about four minutes on two cores

All variants take turns in one process; a number is the shortest time of a step without the shortcut by that with all.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as functional
from omegaconf import OmegaConf
from torch import Tensor, nn

import conf
from morph.model import decoder, embedding, mixer
from morph.model.dropout import Dropout
from morph.model.morph import Capacity, Morph

BENCHMARK = OmegaConf.load(Path(conf.__path__[0]) / "benchmark.yaml")
SHAPES = {name: tuple(BENCHMARK["shape"][name]) for name in BENCHMARK["shapes"]}
REPEATS = 14


def moved(self: mixer.AxisAttention, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
    """Attention with the axis moved to where the textbook has it, and its softmax written out."""
    q, k, v = (x.movedim(axis, -2).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(-2, -3).flatten(-2).movedim(-2, axis)


def all_frames(self: Morph, part: nn.Module, x: Tensor, last_only: bool = False) -> Tensor:
    """The last block on all frames."""
    return part(x)


def never(*_: nn.Module) -> bool:
    return False


WITHOUT: dict[str, AbstractContextManager[object]] = {
    "all of them": nullcontext(),
    "absent axes as one product": patch.object(mixer, "is_plain", never),
    "embedding: taps, features, field attention": patch.object(embedding, "is_plain", never),
    "decoder: rows that are used": patch.object(decoder, "is_plain", never),
    "attention on views, fused": patch.object(mixer.AxisAttention, "_attend", moved),
    "dropout: a draw for four": patch.object(Dropout, "forward", nn.Dropout.forward),
    "last block: last frame": patch.object(Morph, "_run", all_frames),
}


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, size Ti, seed 0\n")
    print(f"{'time without / with':44}" + "".join(f"{name:>11}" for name in SHAPES))
    columns = [measure(shape) for shape in SHAPES.values()]
    for name in WITHOUT:
        print(f"{name:44}" + "".join(f"{column[name] / column['all of them']:11.2f}" for column in columns))
    print(f"{'ms with all of them':44}" + "".join(f"{1e3 * column['all of them']:11.0f}" for column in columns))


def measure(shape: tuple[int, ...]) -> dict[str, float]:
    torch.manual_seed(0)
    model = Morph(capacity=Capacity(max_context=shape[1]), normalisation="none", predict="frame")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x, y = torch.randn(*shape), torch.randn(shape[0], *shape[2:])
    seconds: dict[str, list[float]] = {name: [] for name in WITHOUT}
    for turn in range(REPEATS + 1):
        names = list(WITHOUT)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # none always after the same one
            with WITHOUT[name]:
                start = time.perf_counter()
                functional.mse_loss(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
                if turn:  # the first turn allocates
                    seconds[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
