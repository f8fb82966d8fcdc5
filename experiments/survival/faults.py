"""What goes wrong in a run of the study: a callback that lets it happen at a stated place of a stated step."""

import multiprocessing
import os
import resource
import signal
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

__all__ = ["ACTIONS", "Fault"]


def _kill(trainer: Trainer | None = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _tell(number: int) -> Any:
    return lambda trainer: os.kill(os.getpid(), number)


def _tell_all(number: int) -> Any:
    """The reading processes and the other ranks too: what a terminal does, and a cluster."""
    return lambda trainer: os.killpg(os.getpgid(0), number)


def _tell_twice(trainer: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def _kill_while_writing(trainer: Trainer) -> None:
    """Half of the next checkpoint is in its file."""
    save = torch.save

    def half(content: Any, file: Any) -> None:
        save(content, file)
        file.flush()
        os.truncate(file.fileno(), os.fstat(file.fileno()).st_size // 2)
        _kill()

    torch.save = half


def _kill_before_renaming(trainer: Trainer) -> None:
    """All of the next checkpoint is in its file, which does not have its name yet."""
    save = torch.save

    def whole(content: Any, file: Any) -> None:
        save(content, file)
        file.flush()
        _kill()

    torch.save = whole


def _kill_a_reader(trainer: Trainer) -> None:
    """What the system does to the largest process where memory ends."""
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def _end_memory(trainer: Trainer) -> None:
    """The address space cannot grow any more, and something large is asked for."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20,) * 2)
    torch.ones(2**28)


def _end_disk(trainer: Trainer) -> None:
    """Fill what is left of the file system of the run."""
    with Path(trainer.default_root_dir, "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def _fail(trainer: Trainer) -> None:
    raise RuntimeError("a bug in a callback")


def _exit(trainer: Trainer) -> None:
    os._exit(3)


ACTIONS = {
    "kill": _kill, "terminate": _tell(signal.SIGTERM), "interrupt": _tell(signal.SIGINT),
    "interrupt twice": _tell_twice, "user signal": _tell(signal.SIGUSR1), "terminate all": _tell_all(signal.SIGTERM),
    "interrupt all": _tell_all(signal.SIGINT), "user signal to all": _tell_all(signal.SIGUSR1),
    "kill while writing": _kill_while_writing, "kill before renaming": _kill_before_renaming,
    "kill a reader": _kill_a_reader, "end memory": _end_memory, "end disk": _end_disk, "fail": _fail, "exit": _exit,
}  # fmt: skip


class Fault(Callback):
    """Does something once, in the step after so many.

    Args:
        hook: Of Lightning's callbacks, in which it happens.
        step: Optimiser steps that are done then.
        action: One of `ACTIONS`.
        rank: Of the process to which it happens.
    """

    def __init__(self, hook: str, step: int, action: str, rank: int = 0) -> None:
        done = False

        def happen(trainer: Trainer, *arguments: Any, **named: Any) -> None:
            nonlocal done
            if trainer.global_step == step and trainer.global_rank == rank and not done:
                done = True
                ACTIONS[action](trainer)

        setattr(self, hook, happen)
