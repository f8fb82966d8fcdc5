"""Few-shot training: which trajectories are chosen, what is read, and the scales that a model then has."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import morph.evaluate
from data_adapters.hdf5 import WellAdapter
from morph.checkpoint import read_checkpoint
from morph.data.adapter import DatasetAdapter
from morph.data.module import MixtureDataModule
from morph.data.subset import Subset, few_shot, measure, order, with_statistics
from morph.layout import Field, Statistics
from morph.resume import check_resume
from tests.made_up import Coast, Counted, Waves, put


class Growing(Waves):
    """Waves of amplitude 1, 2, 3, ..., so that scales tell which trajectories they are of; it states those of all."""

    def __init__(self, split: str, name: str = "growing", **scales: list[Any]) -> None:
        super().__init__(split, name)
        self.read_log: list[int] = []
        stated = {"mean": [[0.0], [0.0]], "std": [3.6, 3.6], "rms_increment": [1.1, 2.1]} | scales
        self.statistics = Statistics(**{key: torch.tensor(value) for key, value in stated.items()})

    def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        self.read_log.append(trajectory)
        return put((trajectory + 1) * super().read(trajectory, start, stop), out)


class Stored(Counted):
    """Counts, with scales and frames that are stored four at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.statistics = Statistics(torch.zeros(2, 2), torch.ones(2), torch.ones(2))

    def run(self, frame: int) -> range:
        return range(frame // 4 * 4, min(frame // 4 * 4 + 4, self.spec.num_steps))


def data(num_trajectories: Any, target: str = "tests.test_subset.Growing", **options: Any) -> MixtureDataModule:
    datasets = {"growing": {"_target_": target, "batch_size": 4}}
    module = MixtureDataModule(
        datasets, **{"num_trajectories": num_trajectories, "context": 2, "steps_per_epoch": 6, "seed": 1} | options
    )
    module.setup("fit")
    return module


def chosen(adapter: DatasetAdapter) -> list[int]:
    assert isinstance(adapter, Subset)
    return list(adapter.trajectories)


def worked_out(adapter: DatasetAdapter, trajectories: list[int]) -> Statistics:
    """Scales by the definition, of everything at once."""
    frames = np.stack([adapter.read(i, 0, adapter.spec.num_steps) for i in trajectories]).astype(np.float64)
    mask = adapter.spec.component_mask
    mean = np.nanmean(frames, (0, 1, 4, 5, 6))
    variance = np.nanvar(frames, (0, 1, 4, 5, 6))
    square = np.nanmean(np.square(np.diff(frames, axis=1)), (0, 1, 4, 5, 6))
    pooled = [np.array([np.sqrt(np.mean(f[m])) for f, m in zip(s, mask, strict=True)]) for s in (variance, square)]
    return Statistics(*map(torch.from_numpy, (mean, *pooled)))


def assert_close(found: Statistics | None, expected: Statistics | None) -> None:
    assert found is not None
    assert expected is not None
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-6, atol=1e-6)


def test_means_over_all_trajectories_do_not_fill_in_for_few() -> None:
    config = {"_target_": "tests.made_up.Waves", "batch_size": 2, "missing": "fill"}
    with pytest.raises(ValueError, match=r"num_trajectories: data set 'waves' fills what is missing"):
        MixtureDataModule({"waves": config}, num_trajectories=2)
    MixtureDataModule({"waves": config})


def test_the_order_is_fixed_and_the_choices_are_nested() -> None:
    assert order(8) == [4, 7, 0, 6, 2, 3, 1, 5]  # a later version must not choose others
    assert sorted(order(100)) == list(range(100))
    assert order(100) != list(range(100))
    sets = [set(chosen(few_shot(Counted(num_trajectories=100), n))) for n in (1, 4, 16)]
    assert [len(s) for s in sets] == [1, 4, 16]
    assert sets[0] < sets[1] < sets[2]


def test_values_parameters_and_coordinates_are_the_adapters() -> None:
    whole = Growing("train")
    part = few_shot(whole, 3)
    assert isinstance(part, DatasetAdapter)
    assert len(part) == 3
    assert part.spec is whole.spec
    assert part.coordinates is whole.coordinates
    for i, number in enumerate(chosen(part)):
        assert (part.read(i, 2, 7) == whole.read(number, 2, 7)).all()
        out = np.empty((5, 2, 1, 1, 1, 32), np.float32)
        assert part.read(i, 2, 7, out) is out
        assert (out == whole.read(number, 2, 7)).all()
        assert part.parameters(i) == whole.parameters(number)
    for wrong in (-1, 3):
        with pytest.raises(IndexError, match=f"expected a trajectory of 0 to 2, found {wrong}"):
            part.read(wrong, 0, 1)
    with pytest.raises(IndexError, match="expected trajectories 0 to 7, found 8"):
        Subset(whole, [0, 8], None)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_scales_are_those_of_the_chosen_alone(n: int) -> None:
    whole = Growing("train")
    part = few_shot(whole, n)
    assert_close(part.statistics, worked_out(whole, chosen(part)))
    assert abs(part.statistics.std[0] - whole.statistics.std[0]) > 0.01


def test_scales_of_vectors_fillers_and_large_means_in_pieces_of_any_size() -> None:
    """Counted has a filler, and values up to 5e4 beside which the changes of 100 are small."""
    for whole in (Counted(num_trajectories=5), Stored(num_trajectories=5)):
        expected = worked_out(whole, list(range(5)))
        for memory in (1, 400, 1400, 10**6):
            assert_close(measure(whole, memory), expected)
    whole.read_log.clear()
    measure(whole, memory=6 * 128)
    assert [log[1:] for log in whole.read_log[:3]] == [(0, 4), (4, 9), (0, 4)]


@pytest.mark.parametrize("options", [{}, {"gaps": True}, {"land": 0}])
def test_points_without_data_count_in_no_scale(options: Mapping[str, Any]) -> None:
    whole = Coast("train", **options)
    for memory in (1, 10**6):
        assert_close(measure(Subset(whole, [1, 4], None), memory), worked_out(whole, [1, 4]))


def test_all_of_the_trajectories_have_the_stored_scales(tiny_suite: Path) -> None:
    """Computed here and, by other code, where the suite was generated."""
    for name in ("cfd1d", "mhd3d"):
        adapter = WellAdapter(tiny_suite / name, split="train")
        assert few_shot(adapter, len(adapter)) is adapter
        assert_close(measure(adapter), adapter.statistics)


def test_a_field_that_does_not_change_has_the_smallest_scale_of_stored_statistics() -> None:
    class Still(Growing):
        def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
            values = super().read(trajectory, start, stop)
            values[:, 1] = 3
            return put(values, out)

    found = measure(Still("train"))
    assert found.mean[1].item() == 3
    assert found.std[1].item() == found.rms_increment[1].item() == pytest.approx(1e-4)


def test_a_component_without_values_is_named() -> None:
    class Dark(Growing):
        def __init__(self) -> None:
            super().__init__("train")
            self.spec = replace(self.spec, masked=True, fields=(Field("a"), Field("b")))

        def read(self, trajectory: int, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
            values = super().read(trajectory, start, stop)
            values[:, 1] = np.nan
            return put(values, out)

    with pytest.raises(ValueError, match=r"data set 'mine': num_trajectories=2: there is no value of 'b' .* take more"):
        few_shot(Dark(), 2, "mine")


def test_a_data_set_that_states_no_scales_stays_without_and_is_not_read() -> None:
    whole = Counted(num_trajectories=5)
    assert few_shot(whole, 2).statistics is None
    assert whole.read_log == []


@pytest.mark.parametrize("found", [0, -1, 9, 1.5, True, "one"])
def test_a_number_that_there_is_not_is_refused(found: Any) -> None:
    message = f"num_trajectories: expected 1 to 8, .* data set 'growing' has, or null for all, found {found!r}"
    with pytest.raises(ValueError, match=message):
        data(found)


def test_training_covers_the_chosen_and_reads_no_others_whatever_the_seed() -> None:
    picked = {0, 2, 4, 6, 7}
    for seed in (0, 1):
        module = data(5, seed=seed, steps_per_epoch=13)  # 52 of 50 windows
        windows = module.train["growing"]
        assert set(chosen(windows.adapter)) == picked
        batches = module.train_dataloader()
        for epoch in range(2):
            batches.sampler.set_epoch(epoch)
            drawn: list[list[int]] = []
            for batch in batches:
                drawn += batch.windows.tolist()
                for (i, start), context in zip(batch.windows.tolist(), batch.context, strict=True):
                    assert (context.numpy() == Growing("train").read(i, start, start + 2)).all()
            assert sorted(drawn[:50]) == [[i, start] for i in sorted(picked) for start in range(10)]
        assert set(windows.adapter.adapter.read_log) == picked


def test_validation_is_whole_and_has_the_scales_of_training() -> None:
    module, whole = data(2), data(None)
    for part in (module.valid["growing"], module.train["growing"]):
        assert part.conditions.statistics is module.train["growing"].adapter.statistics
    stored = module.trained_on.statistics["growing"]
    assert_close(stored, worked_out(Growing("train"), chosen(module.train["growing"].adapter)))
    assert len(module.valid["growing"]) == len(whole.valid["growing"])
    for mine, theirs in zip(module.val_dataloader(), whole.val_dataloader(), strict=True):
        assert torch.equal(mine.context, theirs.context)
        assert torch.equal(mine.windows, theirs.windows)


def test_all_of_them_is_the_run_without_the_option() -> None:
    module, whole = data(8), data(None)
    for mine, theirs in zip(module.train_dataloader(), whole.train_dataloader(), strict=True):
        assert torch.equal(mine.context, theirs.context)
        assert torch.equal(mine.windows, theirs.windows)
    assert_close(module.valid["growing"].conditions.statistics, whole.valid["growing"].conditions.statistics)


def test_it_pickles_and_two_workers_give_the_same_batches() -> None:
    part = few_shot(Growing("train"), 3)
    again = pickle.loads(pickle.dumps(part))
    assert chosen(again) == chosen(part)
    assert_close(again.statistics, part.statistics)
    assert (again.read(1, 0, 4) == part.read(1, 0, 4)).all()
    alone, shared = data(3), data(3, num_workers=2, persistent=False)
    for mine, theirs in zip(alone.train_dataloader(), shared.train_dataloader(), strict=True):
        assert torch.equal(mine.context, theirs.context)
        assert torch.equal(mine.windows, theirs.windows)
        assert_close(mine.conditions.statistics, theirs.conditions.statistics)


def test_other_scales_leave_all_else() -> None:
    whole = Growing("test")
    assert with_statistics(whole, None) is whole
    scales = Statistics(torch.ones(2, 1), torch.ones(2), torch.ones(2))
    other = with_statistics(whole, scales)
    assert other.statistics is scales
    assert len(other) == len(whole)
    assert all((other.read(i, 0, 12) == whole.read(i, 0, 12)).all() for i in range(len(whole)))


FAST = (
    "data=growing.yaml",
    "model=nano",
    "model.dim=32",
    "model.depth=1",
    "model.normalisation=dataset",
    "window.context=2",
    "mixture.steps_per_epoch=3",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_few_shot_run_is_resumed_and_judged_with_its_own_scales(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "growing.yaml").write_text(yaml.safe_dump({"_target_": "tests.test_subset.Growing", "batch_size": 4}))
    many = call("morph.train", *FAST, "run_dir=few", "num_trajectories=9", cwd=tmp_path)
    assert "num_trajectories: expected 1 to 8, the training trajectories that data set 'growing' has" in many.stderr
    done = call("morph.train", *FAST, "run_dir=few", "num_trajectories=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "few" / "train.yaml").read_text())["num_trajectories"] == 1
    stored = read_checkpoint(tmp_path / "few").trained_on.statistics["growing"]
    assert_close(stored, worked_out(Growing("train"), order(8)[:1]))
    other = call("morph.train", *FAST, "resume=few", "num_trajectories=2", cwd=tmp_path)
    assert "belongs to a run with other options: num_trajectories=1, now 2;" in other.stderr

    given: list[Statistics | None] = []
    judge = morph.evaluate.score

    def seen(forecasts: Any, adapter: DatasetAdapter, **options: Any) -> Any:
        given.append(adapter.statistics)
        return judge(forecasts, adapter, **options)

    def errors(folder: str) -> np.ndarray:
        options = ("checkpoint=few", "data=growing.yaml", "figures=false", "device=cpu", f"run_dir={folder}")
        done = call("morph.evaluate", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with xr.open_dataset(tmp_path / folder / "metrics.nc", group="growing") as metrics:
            return metrics.rollout.values

    monkeypatch.setattr(morph.evaluate, "score", seen)
    mine = errors("mine")
    assert_close(given[0], stored)
    # The same as of a data set that states these scales itself, and not as of one that states others.
    monkeypatch.setattr(morph.evaluate, "with_statistics", lambda adapter, statistics: adapter)
    others = errors("others")
    assert not np.array_equal(mine, others)
    scales = {key: value.tolist() for key, value in stored._asdict().items()}
    growing = {"_target_": "tests.test_subset.Growing", "batch_size": 4, **scales}
    (tmp_path / "growing.yaml").write_text(yaml.safe_dump(growing))
    np.testing.assert_array_equal(errors("restated"), mine)
    monkeypatch.setattr(morph.evaluate, "with_statistics", with_statistics)
    np.testing.assert_array_equal(errors("equal"), mine)


def test_scales_of_other_fields_of_that_name_are_not_taken() -> None:
    module = data(2)
    spec = Growing("train").spec
    known = module.trained_on
    found = known.scales_of(replace(spec, name="growing"))
    assert_close(found, module.train["growing"].adapter.statistics)
    assert known.scales_of(replace(spec, name="waves")) is None
    assert known.scales_of(replace(spec, name="growing", fields=(Field("a"), Field("c")))) is None


def test_a_run_from_before_there_was_the_option_resumes_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    module = data(None)
    plan = {key: value for key, value in module.plan.items() if key != "num_trajectories"}
    monkeypatch.setattr("morph.resume.read_checkpoint", lambda _: SimpleNamespace(config={}, plan=plan, base={}))
    forecaster: Any = SimpleNamespace(model=SimpleNamespace(config={}), trained={}, base={})
    check_resume(Path("old.ckpt"), forecaster, module)
    with pytest.raises(ValueError, match="num_trajectories=None, now 2"):
        check_resume(Path("old.ckpt"), forecaster, data(2))
