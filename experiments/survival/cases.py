"""The faults of the study: what happens to a run, where, and what is done to its folder afterwards."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from morph.checkpoint_files import newest_good, saved_steps

__all__ = ["CASES", "Case"]

BACKWARD, VALIDATION, END = "on_before_backward", "on_validation_batch_start", "on_train_batch_end"


class Case(NamedTuple):
    """One fault.

    name: What happens.
    hook, step, action: See `faults.Fault`; without an action the run ends by itself.
    place: In words.
    options: Of both commands.
    rank: To which it happens.
    slurm: In a job of SLURM, whose scontrol is a script that writes down how it is called.
    full: In a file system of so many MB.
    after: What is done to the folder of the run before it is resumed.
    again: Further options of the second command.
    times: So often, each time after resuming.
    refused: The second command is to be refused.
    """

    name: str
    place: str
    hook: str = ""
    step: int = 0
    action: str = ""
    options: tuple[str, ...] = ()
    rank: int = 0
    slurm: bool = False
    full: int | None = None
    after: Callable[[Path], None] | None = None
    again: tuple[str, ...] = ()
    times: int = 1
    refused: bool = False


def workers(count: int) -> tuple[str, ...]:
    """Reading processes."""
    return (f"loader.num_workers={count}",)


RANKS = ("trainer.devices=2", "trainer.accelerator=cpu")


def _newest(run_dir: Path) -> Path:
    steps = saved_steps(run_dir / "checkpoints")
    return steps[max(steps)]


def truncate(run_dir: Path) -> None:
    """The newest checkpoint, which last.ckpt is as well."""
    os.truncate(_newest(run_dir), _newest(run_dir).stat().st_size // 3)


def empty(run_dir: Path) -> None:
    """The newest checkpoint."""
    os.truncate(_newest(run_dir), 0)


def flip(run_dir: Path) -> None:
    """One bit among the weights of the newest checkpoint."""
    with _newest(run_dir).open("r+b") as file:
        file.seek(_newest(run_dir).stat().st_size // 2)
        value = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 16]))


def lose_links(run_dir: Path) -> None:
    """The folder was copied by what knows no links, without the numbered checkpoints."""
    for path in saved_steps(run_dir / "checkpoints").values():
        path.unlink()


def cut_losses(run_dir: Path) -> None:
    """What a machine that lost its power leaves of a file that grew: here down to the step of the checkpoint, and
    half a row."""
    found = newest_good(run_dir)
    assert found is not None
    step = int(found.stem.removeprefix("step_"))
    rows = (run_dir / "losses.csv").read_text().splitlines(keepends=True)
    (run_dir / "losses.csv").write_text("".join(rows[: step + 1]) + rows[step + 1][:5])


def move(run_dir: Path) -> None:
    """The folder was renamed and is renamed back: nothing in it holds its own path."""
    elsewhere = run_dir.with_name("elsewhere")
    shutil.copytree(run_dir, elsewhere)
    shutil.rmtree(run_dir)
    elsewhere.replace(run_dir)


def make_room(run_dir: Path) -> None:
    """On the file system that was full."""
    (run_dir / "filler").unlink()


STEP = "in step 18, before its gradient"
CASES = (
    Case("SIGKILL", "in the first step: no checkpoint yet", BACKWARD, 0, "kill"),
    Case("SIGKILL", STEP, BACKWARD, 17, "kill"),
    Case("SIGKILL, 1 reading process", STEP, BACKWARD, 17, "kill", workers(1)),
    Case("SIGKILL, 2 reading processes", STEP, BACKWARD, 17, "kill", workers(2)),
    Case("SIGKILL", "right after a checkpoint inside an epoch", "on_train_batch_start", 14, "kill"),
    Case("SIGKILL", "after the last step of an epoch", END, 20, "kill"),
    Case("SIGKILL", "in the validation after step 20", VALIDATION, 20, "kill"),
    Case("SIGKILL", "in the last step", BACKWARD, 39, "kill"),
    Case("SIGKILL, three times in a row", "in steps 18, 18 and 18", BACKWARD, 17, "kill", times=3),
    Case("SIGKILL", "half of checkpoint 14 is written", BACKWARD, 12, "kill while writing"),
    Case("SIGKILL", "checkpoint 14 is written and not renamed", BACKWARD, 12, "kill before renaming"),
    Case("SIGKILL of rank 0 of 2", STEP, BACKWARD, 17, "kill", RANKS),
    Case("SIGKILL of rank 1 of 2", STEP, BACKWARD, 17, "kill", RANKS, rank=1),
    Case("rank 1 of 2 exits", "in the validation after step 20", VALIDATION, 20, "exit", RANKS, rank=1),
    Case("an exception in rank 1 of 2", STEP, BACKWARD, 17, "fail", RANKS, rank=1),
    Case("SIGTERM", STEP, BACKWARD, 17, "terminate"),
    Case("SIGTERM", "in the validation after step 20", VALIDATION, 20, "terminate"),
    Case("SIGTERM to all processes, 2 reading", STEP, BACKWARD, 17, "terminate all", workers(2)),
    Case("SIGTERM to rank 1 of 2", STEP, BACKWARD, 17, "terminate", RANKS, rank=1),
    Case("SIGTERM to all processes, 2 ranks", STEP, BACKWARD, 17, "terminate all", RANKS),
    Case("Ctrl-C (SIGINT to all, 2 reading)", STEP, BACKWARD, 17, "interrupt all", workers(2)),
    Case("Ctrl-C twice", STEP, BACKWARD, 17, "interrupt twice"),
    Case("SIGUSR1 to all processes of a SLURM job", STEP, BACKWARD, 17, "user signal to all", workers(2), slurm=True),
    Case("SIGTERM in a SLURM job", STEP, BACKWARD, 17, "terminate", slurm=True),
    Case("memory ends", STEP, BACKWARD, 17, "end memory"),
    Case("SIGKILL of a reading process (as of the kernel)", STEP, BACKWARD, 17, "kill a reader", workers(2)),
    Case("the disk is full", "from step 18 on", BACKWARD, 17, "end disk", full=60, after=make_room),
    Case("a bug raises", STEP, BACKWARD, 17, "fail"),
    Case("SIGKILL, then the newest checkpoint is truncated", STEP, BACKWARD, 17, "kill", after=truncate),
    Case("SIGKILL, then the newest checkpoint is empty", STEP, BACKWARD, 17, "kill", after=empty),
    Case("SIGKILL, then one bit of the newest is flipped", STEP, BACKWARD, 17, "kill", after=flip),
    Case("SIGKILL, then last.ckpt and best.ckpt alone are left", STEP, BACKWARD, 37, "kill", after=lose_links),
    Case("SIGKILL, then losses.csv ends in half a row", STEP, BACKWARD, 17, "kill", after=cut_losses),
    Case("SIGKILL, then the folder is copied elsewhere and back", STEP, BACKWARD, 17, "kill", after=move),
    Case("the run is over, and is resumed", "after the last step"),
    Case("resumed with another seed", STEP, BACKWARD, 17, "kill", again=("seed=1",), refused=True),
    Case("resumed with another batch size", STEP, BACKWARD, 17, "kill", again=("batch_size=2",), refused=True),
)  # fmt: skip
