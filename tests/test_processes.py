"""Processes of a run: what starts them, what each gets to do, and that one message says why they ended."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from morph import processes
from morph.parallel import Plan, _ended, plan
from morph.processes import Process, current, launched, lost_another
from tests.conftest import ROOT

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "3", "RANK": "4", "WORLD_SIZE": "6",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "12345", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_NAME": "pretrain",
}  # fmt: skip
SMALL = (
    "data=cfd1d", "level=tiny", "model=nano", "model.dim=32", "model.depth=1", "model.field_heads=8", "batch_size=2",
    "mixture.steps_per_epoch=3", "trainer.max_epochs=1", "loader.validation_windows=3", "trainer.accelerator=cpu",
)  # fmt: skip


def trainer(devices: Any = 1, num_nodes: int = 1, accumulate: int = 1) -> dict[str, Any]:
    return {"devices": devices, "num_nodes": num_nodes, "accumulate_grad_batches": accumulate}


@pytest.mark.parametrize(
    ("options", "batches_per_step", "expected"),
    [
        (trainer(), None, Plan(1, 1, 1, 1)),
        (trainer(accumulate=3), None, Plan(1, 1, 3, 3)),
        (trainer(2, 2), None, Plan(2, 2, 4, 1)),
        (trainer(2, 2, 3), None, Plan(2, 2, 12, 3)),
        (trainer(2), 8, Plan(2, 1, 8, 4)),
        (trainer("2", 2), 8, Plan("2", 2, 8, 2)),
        (trainer([0, 1]), 8, Plan([0, 1], 1, 8, 4)),
        (trainer("0,1,2"), 6, Plan("0,1,2", 1, 6, 2)),
        (trainer("auto"), 8, Plan("auto", 1, 8, 8)),  # one CPU
        (trainer(4, accumulate=2), 8, Plan(4, 1, 8, 2)),
    ],
)
def test_each_process_accumulates_its_share(
    options: dict[str, Any], batches_per_step: int | None, expected: Plan
) -> None:
    assert plan(options, batches_per_step, "cpu") == expected


def test_what_cannot_be_shared_out_or_contradicts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batches_per_step: .* which is 3 .*, found 8; give 6 or 9, or"):
        plan(trainer(3), 8, "cpu")
    with pytest.raises(ValueError, match=r"accumulate_grad_batches=3 contradicts batches_per_step=8, .* accumulates 4"):
        plan(trainer(2, accumulate=3), 8, "cpu")
    with pytest.raises(ValueError, match=r"accumulate_grad_batches=1 contradicts batches_per_step=8"):
        plan(trainer(2), 8, "cpu", stated=["trainer.accumulate_grad_batches=1"])


def test_torchrun_and_srun_say_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() is None
    assert current() is None
    with monkeypatch.context() as patch:
        for name, value in TORCHRUN.items():
            patch.setenv(name, value)
        assert plan(trainer(), 12, "cpu") == Plan(2, 3, 12, 2)
        assert plan(trainer(2, 3), 12, "cpu") == Plan(2, 3, 12, 2)
        with pytest.raises(ValueError, match=r"devices=4, .* torchrun started 2 processes on each of 3 nodes; leave"):
            plan(trainer(4), 12, "cpu")
        assert str(current()) == "process 4 of 6"
    for name, value in {**SRUN, "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert plan(trainer(), 12, "cpu") == Plan(2, 1, 12, 6)
    assert str(current()) == "process 1 of 2"
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ValueError, match="give --ntasks-per-node=2 instead of --ntasks=2"):
        launched()
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(ValueError, match="SLURM has 2 tasks, and this process is none of them; put srun before"):
        launched()
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert launched() is None


def test_the_first_process_that_fails_has_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REPORT", 0.2)
    first, second = (Process(rank, 2, tmp_path / "new") for rank in (0, 1))
    assert first.first is None
    assert second.claim()
    assert not first.claim()
    assert second.claim()
    assert first.verdict(lambda: "process 1 of 2 was killed") is None
    assert "process 1 of 2 was killed" in str(second.verdict(lambda: "process 1 of 2 was killed"))
    # Word that an earlier run of the same numbers left is none.
    os.utime(tmp_path / "new" / "first", (time.time() - 1e5,) * 2)
    assert first.first is None
    assert "process 0 of 2 lost its connection" in str(first.verdict(lambda: None))
    assert not second.claim()


def test_a_process_knows_how_another_one_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = {"": None, "raise SystemExit(3)": "ended with exit code 3", "import os; os.kill(os.getpid(), 9)": "SIGKILL"}
    for code, expected in codes.items():
        with subprocess.Popen([sys.executable, "-S", "-c", code]) as child:
            child.wait()
            words = _ended(Process(2, 4, tmp_path), [child], None)
        assert (
            words is None if expected is None else f"process 3 of 4 {expected}" in words.replace("was killed by ", "")
        )
    monkeypatch.setenv("MORPH_PROCESS", f"3:4:{tmp_path}")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _ended(Process(3, 4, tmp_path), [], os.getppid()) is None
    assert _ended(Process(3, 4, tmp_path), [], -1) == "process 2 of 4 ended and left no message"


def test_a_broken_connection_is_told_from_what_broke_it() -> None:
    assert lost_another(RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:40711"))
    assert lost_another(torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp"))
    assert not lost_another(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_another(ValueError("data set 'gloo': NaN"))


def test_jobs_of_a_multirun_need_folders_of_their_own(call: Any, tmp_path: Path, monkeypatch: Any) -> None:
    done = call("morph.train", "--multirun", "seed=0,1", "run_dir=runs/x", *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "error: run_dir: several jobs cannot write to runs/x; leave it out" in done.stderr
    assert not (tmp_path / "runs" / "x").exists()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    done = call("morph.train", "--multirun", "seed=0,1", *SMALL, cwd=tmp_path)
    assert "--multirun: torchrun starts the processes of one run; leave torchrun out" in done.stderr


@pytest.mark.filterwarnings("ignore:`torch.jit")  # what torch.compile imports
def test_sharded_weights_refuse_what_needs_them_whole(call: Any, suite_root: Path, tmp_path: Path) -> None:
    options = (*SMALL, f"data_dir={suite_root}", "trainer.strategy=fsdp", "trainer.devices=2")
    done = call("morph.train", *options, "execution.compile=true", cwd=tmp_path)
    assert "execution.compile takes weights as they are when it compiles, which trainer.strategy=fsdp" in done.stderr
    average = "+callbacks.average._target_=lightning.pytorch.callbacks.EMAWeightAveraging"
    done = call("morph.train", *options, average, "overwrite=true", cwd=tmp_path)
    assert "callbacks: an average of the weights needs all of them in one process" in done.stderr


def test_a_run_resumes_with_the_same_batches_per_step_alone(call: Any, suite_root: Path, tmp_path: Path) -> None:
    options = (*SMALL, f"data_dir={suite_root}", "run_dir=run")
    done = call("morph.train", *options, "batches_per_step=4", "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "An optimiser step: 4 batches, 4 accumulated: cfd1d 8 windows" in done.stdout
    done = call("morph.train", *options, "resume=run", "trainer.max_epochs=2", cwd=tmp_path)
    assert "other options: batches_per_step=4, now 1" in done.stderr
    # What is not stated is what comes of the number of processes.
    more = ("resume=run", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=4")
    assert call("morph.train", *options, *more, cwd=tmp_path).returncode == 0


def start(*command: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """A command under way in a process group of its own."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def train(suite_root: Path, *options: str) -> list[str]:
    return ["-m", "morph.train", *options, *SMALL, f"data_dir={suite_root}"]


def running(session: int) -> list[int]:
    """Processes of a session, zombies included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # over by now
            continue
        if int(fields[3]) == session:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_under_srun_a_process_that_fails_ends_the_other_with_its_message(suite_root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        *train(suite_root, "+callbacks.die={_target_: tests.dying.Dies, rank: 1, how: value_error}"),
    ]
    places = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    job = {**SRUN, "SLURM_JOB_ID": str(os.getpid())}
    runs = [start(*command, cwd=tmp_path, **job, **place) for place in places]
    (printed, first), (_, second) = [run.communicate(timeout=600) for run in runs]
    assert f"Results in runs/slurm_{os.getpid()}\n" in printed
    assert first == ""
    assert second == "error: data set 'cfd1d': NaN in the data (process 1 of 2)\n"
    assert [run.returncode for run in runs] == [1, 1]


@pytest.mark.slow
def test_torchrun_trains_in_one_folder_with_one_command(suite_root: Path, tmp_path: Path) -> None:
    command = train(suite_root, "batches_per_step=4")
    with start(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *command, cwd=tmp_path) as run:
        printed, errors = run.communicate(timeout=600)
    assert run.returncode == 0, errors
    assert "An optimiser step: 4 batches over 2 processes, 2 accumulated: cfd1d 8 windows" in printed
    (folder,) = (tmp_path / "runs").iterdir()
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["best.ckpt", "last.ckpt", "step_00000003.ckpt"]


@pytest.mark.slow
def test_jobs_of_a_multirun_do_not_collide_and_a_killed_process_ends_the_other(
    suite_root: Path, tmp_path: Path
) -> None:
    """Of the second job, which has begun by then."""
    die = ["+callbacks.die._target_=tests.dying.Dies", "+callbacks.die.rank=1", "+callbacks.die.how=none,kill"]
    command = ["-m", "morph.train", "--multirun", "trainer.devices=2", *die, *train(suite_root)[2:]]
    with start(sys.executable, *command, cwd=tmp_path) as run:
        printed, errors = run.communicate(timeout=600)
        assert run.returncode == 1, errors
        assert running(run.pid) == []
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "multirun.yaml"]
    assert printed.count("An optimiser step: 2 batches over 2 processes: cfd1d 4 windows") == 2
    stored = torch.load(folder / "0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["morph"]["plan"]["batches_per_step"] == 2
    assert errors.startswith("error: process 1 of 2 was killed by SIGKILL and left no message; ")
    assert len(errors.splitlines()) == 1
