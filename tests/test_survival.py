"""Whatever ends a run, and wherever: what it wrote is whole, and it goes on as if nothing had happened."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from morph.checkpoint_files import damage, newest_good, saved_steps
from morph.history import read_rows
from morph.run_folder import claimed
from tests.conftest import ROOT
from tests.made_up_runs import EPOCHS, STEPS, files, fit

HOOKS = (
    "on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end",
    "on_validation_start", "on_validation_batch_end", "on_validation_end", "on_train_epoch_end",
)  # fmt: skip


class PowerCutError(RuntimeError):
    """What ends a run in the middle."""


class Cut(Callback):
    """Ends a run, or does something else, at the n-th call of a hook."""

    def __init__(self, hook: str, call: int, action: Any = None) -> None:
        self.calls = 0

        def count(*arguments: Any, **named: Any) -> None:
            self.calls += 1
            if self.calls == call:
                if action is None:
                    raise PowerCutError
                action()

        setattr(self, hook, count)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return files(folder)


def calls() -> Iterator[tuple[str, int]]:
    """The first step, one between two checkpoints, the last of an epoch, the first of the next, the last of all."""
    for hook in HOOKS:
        by_step = "batch_start" in hook or "before" in hook or "train_batch_end" in hook
        yield from ((hook, call) for call in ((1, 3, STEPS, STEPS + 1, STEPS * EPOCHS) if by_step else (1, EPOCHS)))


@pytest.mark.parametrize(("hook", "call"), list(calls()))
def test_a_run_cut_off_anywhere_goes_on_as_if_nothing_had_happened(
    whole: dict[str, bytes], tmp_path: Path, hook: str, call: int
) -> None:
    """Losses, scores, weights, optimiser and best score, bit for bit."""
    with pytest.raises(PowerCutError):
        fit(tmp_path, Cut(hook, call))
    fit(tmp_path, resume=newest_good(tmp_path))
    assert files(tmp_path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_with_reading_processes_too(whole: dict[str, bytes], tmp_path: Path, workers: int) -> None:
    with pytest.raises(PowerCutError):
        fit(tmp_path, Cut("on_train_batch_end", 9), loader=[("num_workers", workers)])
    fit(tmp_path, resume=newest_good(tmp_path), loader=[("num_workers", workers)])
    assert files(tmp_path) == whole


def test_a_run_cut_off_again_and_again(whole: dict[str, bytes], tmp_path: Path) -> None:
    for _ in range(STEPS * EPOCHS // 2 - 1):
        with pytest.raises(PowerCutError):
            fit(tmp_path, Cut("on_train_batch_end", 3), resume=newest_good(tmp_path))
    fit(tmp_path, resume=newest_good(tmp_path))
    assert files(tmp_path) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(
    ("hook", "call", "step"), [("on_before_backward", 3, 3), ("on_validation_start", 1, STEPS), ("on_fit_start", 1, 1)]
)
def test_a_signal_leaves_a_checkpoint_of_its_step(
    whole: dict[str, bytes], tmp_path: Path, number: int, hook: str, call: int, step: int, capfd: Any
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        fit(tmp_path, Cut(hook, call, lambda: os.kill(os.getpid(), number)), every=None)
    assert end.value.code == 128 + number
    assert signal.getsignal(number) == before
    said = capfd.readouterr()
    assert f"{signal.Signals(number).name}: ends after this step, with a checkpoint" in said.err
    assert f"Ended by {signal.Signals(number).name} after step {step}" in said.out
    assert max(saved_steps(tmp_path / "checkpoints")) == step
    fit(tmp_path, resume=newest_good(tmp_path), every=None)
    assert files(tmp_path) == whole


def spoil_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_one_bit(path: Path) -> None:
    """In the middle, among the weights: a file of the right length that torch loads without a word."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_all(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_half, spoil_one_bit, spoil_all])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    whole: dict[str, bytes], tmp_path: Path, spoil: Any, capsys: Any
) -> None:
    with pytest.raises(PowerCutError):
        fit(tmp_path, Cut("on_train_batch_end", 5))
    steps = saved_steps(tmp_path / "checkpoints")
    assert sorted(steps) == [2, 4]
    spoil(steps[4])  # and last.ckpt, which is the same file
    found = newest_good(tmp_path)
    assert found == steps[2]
    said = capsys.readouterr().out
    assert said.startswith(f"{steps[4]} is passed over: it")
    fit(tmp_path, resume=found)
    assert files(tmp_path) == whole
    assert "step_00000004.ckpt lies after step 2" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "set_aside" / "step_00000004.ckpt").is_file()
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        spoil(path)
    with pytest.raises(ValueError, match=r"none of the \d checkpoints in .*/checkpoints can be read"):
        newest_good(tmp_path)
    assert newest_good(tmp_path / "nowhere") is None


def test_the_last_checkpoints_are_kept_and_some_for_good(tmp_path: Path) -> None:
    fit(tmp_path, every=2, keep=2, archive=4)
    folder = tmp_path / "checkpoints"
    # 2, 4, 6 (an end of an epoch), 8, 10, 12 (the other): the last two of those that are not kept for good, and these.
    assert sorted(saved_steps(folder)) == [4, 6, 8, 10, 12]
    assert (folder / "last.ckpt").samefile(folder / "step_00000012.ckpt")
    assert damage(folder / "best.ckpt") is None
    assert not list(folder.glob(".*"))


def test_without_links_names_are_copies(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("this file system has no links")

    monkeypatch.setattr(os, "link", refuse)
    fit(tmp_path)
    assert files(tmp_path) == whole
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "checkpoint_every: expected a positive number, found 0"),
        ({"keep": 0}, "checkpoint_keep: expected a positive number, found 0"),
        (
            {"archive": 3},
            "expected a multiple of checkpoint_every, found 3 with checkpoint_every=2",
        ),
        ({"every": None, "archive": 3}, "found 3 with checkpoint_every=None"),
    ],
)
def test_policies_that_make_no_sense(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, **options)


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, in the middle of the third file."""
    written, save = [], torch.save

    def full(content: Any, file: Any) -> None:
        written.append(file.name)
        if len(written) == 3:
            file.write(b"the beginning")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"step_00000006.ckpt could not be written: No space left on device \(\d+ MB are"):
        fit(tmp_path)
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "step_00000002.ckpt", "step_00000004.ckpt"]
    monkeypatch.setattr(torch, "save", save)
    fit(tmp_path, resume=newest_good(tmp_path))
    assert files(tmp_path) == whole


def test_what_a_killed_run_left_unfinished_is_cleared_away(whole: dict[str, bytes], tmp_path: Path) -> None:
    """Half a checkpoint, half a row of losses, rows of steps that are lost."""
    with pytest.raises(PowerCutError):
        fit(tmp_path, Cut("on_train_batch_end", 5))
    (tmp_path / "checkpoints" / ".step_00000006.ckpt.4711").write_bytes(b"PK")
    with (tmp_path / "losses.csv").open("a") as rows:
        rows.write("6,slow,1.0\n7,fa")
    fit(tmp_path, resume=newest_good(tmp_path))
    assert files(tmp_path) == whole
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_every_step_has_one_row_with_all_digits(whole: dict[str, bytes], tmp_path: Path) -> None:
    seen: list[float] = []

    class Seen(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            seen.append(outputs["loss"].item())

    fit(tmp_path, Seen())
    rows = read_rows(tmp_path / "losses.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS * EPOCHS + 1))
    assert [float(row["loss"]) for row in rows] == seen  # not rounded
    logged = read_rows(tmp_path / "log" / "metrics.csv")
    assert [(int(row["step"]), float(row["train/loss"])) for row in logged] == list(enumerate(seen, 1))
    assert [int(row["step"]) for row in logged if row["val/ratio"]] == [STEPS, STEPS * EPOCHS]


class Job:
    """A job of SLURM, with an `scontrol` that writes down how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
        self.calls = folder / "calls"
        (folder / "scontrol").write_text(f"#!/bin/sh\necho $* >> {self.calls}\necho no such job >&2\nexit {code}\n")
        (folder / "scontrol").chmod(0o755)
        variables = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "pretrain", "SLURM_JOB_ID": "815", "SLURM_PROCID": "0"}
        for name, value in {**variables, "PATH": f"{folder}:{os.environ['PATH']}"}.items():
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("number", "code", "task", "end", "called"),
    [
        (signal.SIGUSR1, 0, None, 0, "requeue 815"),
        (signal.SIGTERM, 0, "3", 0, "requeue 800_3"),
        (signal.SIGTERM, 1, None, 128 + signal.SIGTERM, "requeue 815"),
        (signal.SIGINT, 0, None, 128 + signal.SIGINT, None),
    ],
)
def test_a_job_goes_back_into_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any,
    number: int, code: int, task: str | None, end: int, called: str | None,
) -> None:  # fmt: skip
    (tmp_path / "bin").mkdir()
    job = Job(tmp_path / "bin", monkeypatch, code)
    if task:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "800")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path, Cut("on_before_backward", 3, lambda: os.kill(os.getpid(), number)), cluster=True)
    assert ended.value.code == end
    assert (job.calls.read_text().strip() if job.calls.exists() else None) == called
    assert max(saved_steps(tmp_path / "checkpoints")) == 3
    if code:
        assert "scontrol requeue 815 ended with 1: no such job" in capsys.readouterr().err


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    """The lock is of the process that holds it: another one is told who that is, and has it once that one is gone."""
    wait = (
        "import sys, pathlib\nfrom morph.run_folder import claimed\n"
        f"with claimed(pathlib.Path({str(tmp_path)!r}), False, None):\n"
        "    print('mine', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", wait], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with (
            pytest.raises(ValueError, match=rf"is being written by another run, process {other.pid} on "),
            claimed(tmp_path, False, None),
        ):
            pass
        other.kill()
    with claimed(tmp_path, False, None):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
