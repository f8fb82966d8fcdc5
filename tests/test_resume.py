"""Which run goes on, from where, and what must be as it was."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from morph import checkpoint_files
from morph.checkpoint_files import Checkpoints, newest_good, saved_steps
from morph.forecaster import Forecaster
from morph.history import read_rows
from morph.processes import Process
from morph.resume import check_resume, recipe, resume_point
from morph.run_folder import claimed
from tests.made_up_runs import STEPS, data, files, fit, forecaster

OPTIONS: dict[str, Any] = {
    "ema": None,
    "objective": {"loss": "squared", "pushforward": 0},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
    "schedule": {"warmup_fraction": 0.05},
    "weight_decay": 0.01,
    "trainer": {"gradient_clip_val": 1.0, "max_epochs": 3, "devices": 1},
}


def of(options: dict[str, Any], precision: str = "32-true") -> Forecaster:
    """A run with these options."""
    made = forecaster()
    made.recipe = recipe(options, precision)
    return made


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which there is a checkpoint."""
    folder = tmp_path_factory.mktemp("begun")
    trainer = fit(folder)
    trainer.lightning_module.recipe = recipe(OPTIONS, "32-true")
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return folder


def opened(**options: Any) -> Any:
    module = data(**options)
    module.setup("fit")
    return module


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.5}}, "optimizer.lr=0.001, now 0.5"),
        ({"optimizer": {"_target_": "torch.optim.AdamW"}}, "optimizer.lr=0.001, now None"),
        ({"schedule": None}, "schedule.warmup_fraction=0.05, now None"),
        ({"weight_decay": 0.9}, "weight_decay=0.01, now 0.9"),
        ({"ema": 0.9}, "ema=None, now 0.9"),
        ({"objective": {"loss": "absolute", "pushforward": 0}}, "objective.loss=squared, now absolute"),
        ({"trainer": {"gradient_clip_val": None}}, "trainer.gradient_clip_val=1.0, now None"),
    ],
)
def test_other_options_are_refused(begun: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_resume(begun / "checkpoints" / "last.ckpt", of({**OPTIONS, **change}), opened())


def test_more_epochs_and_other_devices_are_not_refused(begun: Path) -> None:
    longer = {**OPTIONS, "trainer": {**OPTIONS["trainer"], "max_epochs": 9, "devices": 2}}
    check_resume(begun / "checkpoints" / "last.ckpt", of(longer), opened())
    with pytest.raises(ValueError, match=r"trainer\.precision=32-true, now bf16-mixed"):
        check_resume(begun / "checkpoints" / "last.ckpt", of(OPTIONS, "bf16-mixed"), opened())


def test_other_data_under_the_same_names_are_refused(begun: Path) -> None:
    other = opened()
    other.train["slow"].adapter.speed = 0.51  # the same names, sizes and numbers of trajectories
    with pytest.raises(ValueError, match="slow held other data"):
        check_resume(begun / "checkpoints" / "last.ckpt", of(OPTIONS), other)


def test_a_run_from_before_these_were_stored_goes_on(begun: Path, tmp_path: Path) -> None:
    old = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=True)
    later = ("optimizer", "schedule", "weight_decay", "trainer", "ema", "data sets", "batches_per_step")
    old["morph"]["plan"] = {k: v for k, v in old["morph"]["plan"].items() if not k.startswith(later)}
    torch.save(old, tmp_path / "old.ckpt")
    check_resume(tmp_path / "old.ckpt", of(OPTIONS), opened())


def test_where_a_run_goes_on_from(begun: Path, tmp_path: Path) -> None:
    newest = saved_steps(begun / "checkpoints")[2 * STEPS]
    assert resume_point("auto", begun, False) == resume_point(str(begun), tmp_path, False) == newest
    assert resume_point(str(begun / "checkpoints" / "best.ckpt"), tmp_path, False).name == "best.ckpt"
    assert resume_point("auto", tmp_path, False) is None
    assert resume_point(None, begun, True) is None
    with pytest.raises(ValueError, match="resume=auto continues a run, overwrite=true replaces it"):
        resume_point("auto", begun, True)
    (tmp_path / "half.ckpt").write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"half.ckpt: it is empty, truncated or no checkpoint at all \(1000 bytes\)"):
        resume_point(str(tmp_path / "half.ckpt"), tmp_path, False)


def test_a_folder_is_that_of_one_run(begun: Path, tmp_path: Path) -> None:
    """Not of another one's continuation, nor of one that another process went on with meanwhile."""
    newest = newest_good(begun)
    with claimed(begun, False, newest, since=time.time()):
        pass
    fit(tmp_path, max_steps=2)
    with pytest.raises(ValueError, match="already holds a run"), claimed(tmp_path, False, newest):
        pass
    with (
        pytest.raises(ValueError, match="another process went on with the run"),
        claimed(begun, False, newest, since=newest.stat().st_mtime - 1),
    ):
        pass


def test_a_run_that_is_killed_as_its_checkpoint_gets_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to the step is written before: its row of scores, too."""
    fit(tmp_path / "whole")
    name_too = checkpoint_files._name_too

    def cut(path: Path, name: Path) -> None:
        name_too(path, name)
        if path.stem.endswith("04"):
            raise RuntimeError("power cut")

    monkeypatch.setattr(checkpoint_files, "_name_too", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path / "cut")
    monkeypatch.setattr(checkpoint_files, "_name_too", name_too)
    found = newest_good(tmp_path / "cut")
    assert found is not None
    assert found.stem == "step_00000004"
    fit(tmp_path / "cut", resume=found)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_validation_inside_an_epoch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer.val_check_interval=3: runs validate at the end of an epoch"):
        fit(tmp_path, val_check_interval=3)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    scores = [float("nan"), 2.0, float("nan"), 1.0, 1.5]
    trainers: list[Any] = [SimpleNamespace(callback_metrics={"val/ratio": torch.tensor(score)}) for score in scores]
    assert [checkpoints._improved(trainer) for trainer in trainers] == [False, True, False, True, False]


def test_of_processes_that_fail_at_once_one_has_the_word(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for attempt in range(200):
            group = [Process(rank, 4, tmp_path / str(attempt)) for rank in range(4)]
            assert sum(pool.map(Process.claim, group)) == 1


def test_windows_are_read_again_by_their_places() -> None:
    windows = opened().train["slow"]
    batch = windows.batch([0, 7, 30])
    again = windows.again(batch.windows)
    assert torch.equal(again.context, batch.context)
    assert torch.equal(again.target, batch.target)
    assert torch.equal(again.windows, batch.windows)


def test_a_row_that_does_not_fit_leaves_no_stump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes the beginning of a row and then has room again."""

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            rows = self.tell() and content.startswith(b"3,")
            return super().write(content[:4] if rows else content)

    opens = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *a, **k: (
            Full(str(path), "ab") if path.name == "losses.csv" and mode == "ab" else opens(path, mode, *a, **k)
        ),
    )
    with pytest.raises(OSError, match=r"No space left on device.*losses.csv"):
        fit(tmp_path)
    monkeypatch.undo()
    assert [row["step"] for row in read_rows(tmp_path / "losses.csv")] == ["1", "2"]
