"""A check reads every value once, names all that is wrong, and stores the scales that training then uses."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

from data_adapters.handles import HANDLES
from data_adapters.hdf5 import ArrayAdapter, WellAdapter
from tests.array_files import BLOCKS, describe, noise, store
from tests.well_files import WellField, coded_file, write, write_stats

NAMES = ("density", "pressure")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    HANDLES.close(list(HANDLES._open))


@pytest.fixture
def check(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    return partial(call, "data_adapters.check", cwd=tmp_path)


def test_statistics_are_written_then_used_then_left_alone(check: Any, tmp_path: Path) -> None:
    u = 3 + noise(6, 9, 8)
    store(tmp_path / "mine_0.h5", u=u)
    options = describe(tmp_path)
    assert ArrayAdapter(**options).statistics is None
    done = check("dataset=mine.yaml")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "mine.stats.yaml"
    assert f"statistics: {path}, written\nok\n" in done.stdout
    assert "by trajectory: train the rest, valid 1, test 1, in this order, in each file" in done.stdout
    statistics = ArrayAdapter(**options).statistics
    assert statistics is not None
    trained = u[:4].astype(np.float64)
    assert statistics.mean.item() == np.float32(trained.mean())
    assert statistics.std.item() == np.float32(trained.std())
    assert statistics.rms_increment.item() == np.float32(np.sqrt(np.mean(np.diff(trained, axis=1) ** 2)))
    (line,) = (line.split() for line in done.stdout.splitlines() if "training uses" in line)
    assert line == ["training", "uses", *(f"{values.item():.4g}" for values in statistics)]
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    again = check("data=[mine.yaml]")
    assert f"statistics: {path}, as it was\nok\n" in again.stdout
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)


def test_only_the_training_split_counts(check: Any, tmp_path: Path) -> None:
    u = noise(6, 5, 8)
    texts = []
    for scale in (1, 100):
        u[4:] *= scale
        store(tmp_path / "mine_0.h5", u=u)
        describe(tmp_path)
        assert check("dataset=mine.yaml").returncode == 0
        texts.append((tmp_path / "mine.stats.yaml").read_text())
    assert texts[0] == texts[1]


def test_nothing_is_written_when_not_asked_for(check: Any, tmp_path: Path) -> None:
    store(tmp_path / "mine_0.h5", u=noise(4, 5, 8))
    describe(tmp_path)
    done = check("dataset=mine.yaml", "statistics=false", "json=numbers.json")
    assert done.returncode == 0
    assert "statistics=false" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"mine_0.h5", "mine.yaml", "numbers.json"}
    numbers = json.loads((tmp_path / "numbers.json").read_text())["datasets"]["mine"]
    assert (numbers["ok"], numbers["used"], numbers["splits"]["train"]["trajectories"]) == (True, None, 2)
    assert numbers["splits"]["train"]["fields"]["u"]["std"] == pytest.approx(noise(4, 5, 8)[:2].std(), rel=1e-6)


def test_statistics_of_another_split_rule_are_computed_anew(check: Any, tmp_path: Path) -> None:
    store(tmp_path / "mine_0.h5", u=noise(6, 5, 8))
    describe(tmp_path)
    assert check("dataset=mine.yaml").returncode == 0
    options = describe(tmp_path, splits={**BLOCKS, "order": ["test", "valid", "train"]})
    with pytest.raises(ValueError, match=re.escape("python -m data_adapters.check")):
        ArrayAdapter(**options)
    refused = check("dataset=mine.yaml", "statistics=false")
    assert refused.returncode == 1
    assert "expected statistics of" in refused.stdout
    assert "computed anew" in check("dataset=mine.yaml").stdout
    statistics = ArrayAdapter(**options).statistics
    assert statistics is not None
    assert statistics.std.item() == pytest.approx(noise(6, 5, 8)[2:].std(), rel=1e-6)


def test_published_statistics_are_compared_and_never_changed(check: Any, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    for seed, split in enumerate(("train", "valid", "test")):
        fields = {name: WellField(noise(3, 7, 3, 4, seed=seed) + shift) for shift, name in enumerate(NAMES)}
        write(folder, coded_file(("x", "y"), fields=fields), split=split)
    values = {name: WellAdapter(folder, fields=[name]) for name in NAMES}
    arrays = {name: np.stack([each.read(i, 0, 7) for i in range(3)]) for name, each in values.items()}
    stats = {
        "mean": {name: float(array.mean()) for name, array in arrays.items()},
        "std": {name: float(array.std()) for name, array in arrays.items()},
        "rms_delta": {name: float(np.sqrt(np.mean(np.diff(array, axis=1) ** 2))) for name, array in arrays.items()},
    }
    stats["std"]["pressure"] *= 1.04
    stats["rms_delta"]["density"] *= 1.06
    path = write_stats(folder, stats)
    before = path.read_bytes()
    (tmp_path / "well.yaml").write_text(
        f"{{_target_: data_adapters.hdf5.WellAdapter, path: {folder}, fields: [density, pressure]}}"
    )
    done = check("dataset=well.yaml")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    assert "which came with the data" in done.stdout
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert re.search(r"stats.yaml: field 'density': its rms increment is .* there and .* in the", warnings[0])


def test_everything_that_is_wrong_is_found_in_one_run(check: Any, tmp_path: Path) -> None:
    """Rows 8 and 9 of each file are for validation and testing."""
    sound = noise(10, 6, 8)
    store(tmp_path / "mine_0.h5", u=sound)
    store(tmp_path / "mine_1.h5", u=noise(10, 5, 8))
    store(tmp_path / "mine_2.h5", u=noise(10, 6, 7))
    whole = store(tmp_path / "mine_3.h5", u=noise(10, 6, 8)).read_bytes()
    (tmp_path / "mine_3.h5").write_bytes(whole[: len(whole) // 2])
    store(tmp_path / "mine_4.h5", u=noise(10, 6, 8) + 1j)
    spoilt = noise(10, 6, 8, seed=1)
    spoilt[1, 2, 3] = np.nan
    spoilt[2, 4, 5] = np.inf
    spoilt[9] = sound[0]
    spoilt[3] = spoilt[4]
    store(tmp_path / "mine_5.h5", u=spoilt)
    describe(tmp_path)
    store(tmp_path / "good_0.h5", u=sound)
    describe(tmp_path, "good")
    done = check("dataset=[mine.yaml,good.yaml]", "json=numbers.json")
    assert done.returncode == 1
    assert done.stderr == "error: 7 in mine"
    numbers = json.loads((tmp_path / "numbers.json").read_text())["datasets"]
    assert (numbers["mine"]["ok"], numbers["good"]["ok"]) == (False, True)
    words = (
        "mine_1.h5: the number of frames is not that of",
        "mine_2.h5: spatial_shape is not that of",
        "mine_3.h5: expected a readable HDF5 file, found: .*truncated",
        "mine_4.h5: /u: expected real numbers, found complex",
        "mine_5.h5: trajectory 1: field 'u': NaN in 1 frame.*, the first is frame 2; .*missing=fill or mask",
        r"mine_5.h5: u: .*infinity at 1 points .* trajectory 2, the first in frame 4 at {'x': 5}",
        r"mine_5.h5, trajectory 9 \(test\) has the values of .*mine_0.h5, trajectory 0 \(train\)",
    )
    for pattern in words:
        assert len([error for error in numbers["mine"]["errors"] if re.search(pattern, error)]) == 1, pattern
        assert re.search(f"error: .*{pattern}", done.stdout), pattern
    left_out, warning = numbers["mine"]["warnings"]
    assert "files with errors are left out" in left_out
    assert re.search(
        r"mine_5.h5, trajectory 4 \(train\) has the values of .*mine_5.h5, trajectory 3 \(train\)", warning
    )
    assert not (tmp_path / "mine.stats.yaml").exists()
    assert (tmp_path / "good.stats.yaml").exists()


def test_folders_that_are_splits_agree(check: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "well", coded_file(("x", "y"), vector=3))
    write(folder, coded_file(("x", "y"), vector=2), split="valid")
    write(folder, coded_file(("x",), times=np.arange(7.0)), split="test")
    (tmp_path / "well.yaml").write_text(f"{{_target_: data_adapters.hdf5.WellAdapter, path: {folder}}}")
    done = check("dataset=well.yaml")
    assert done.returncode == 1
    for words in (
        "valid/part_0.hdf5: fields is not",
        "test/part_0.hdf5: dt is not",
        "test/part_0.hdf5: spatial_shape is",
    ):
        assert words in done.stdout


def test_of_many_errors_some_are_shown(check: Any, tmp_path: Path) -> None:
    u = noise(40, 4, 8)
    u[:, 0, 0] = np.nan
    store(tmp_path / "mine_0.h5", u=u)
    describe(tmp_path)
    done = check("dataset=mine.yaml")
    assert done.stderr == "error: 40 in mine"
    assert done.stdout.count("error: ") == 21
    assert "error: and 20 more" in done.stdout


def test_a_data_set_that_is_not_there(check: Any, tmp_path: Path) -> None:
    describe(tmp_path, "gone")
    (tmp_path / "typo.yaml").write_text(
        f"{{_target_: data_adapters.hdf5.ArrayAdapter, files: {tmp_path}/typo.yaml, feilds: [u], dims: [time, x]}}"
    )
    (tmp_path / "other.yaml").write_text("{_target_: tests.made_up.Waves}")
    (tmp_path / "none.yaml").write_text("{_target_: data_adapters.hdf5.NoAdapter}")
    done = check("dataset=[gone.yaml,typo.yaml,other.yaml,none.yaml]")
    assert done.stderr == "error: 1 in gone, 1 in typo, 1 in other, 1 in none"
    for words in ("gone_*.h5: no file matches", "'feilds'", "made of data_adapters.grid.GridAdapter", "no class data"):
        assert words in done.stdout
    unknown = check("dataset=nothing")
    assert unknown.returncode == 1
    assert "there is no data set 'nothing'; choose from" in unknown.stderr
    assert "data is needed" in check().stderr


def test_missing_values_count_nowhere(check: Any, tmp_path: Path) -> None:
    u = noise(6, 5, 8)
    u[..., 2] = np.nan
    store(tmp_path / "mine_0.h5", u=u)
    options = describe(tmp_path, missing="fill")
    with pytest.raises(ValueError, match=re.escape("data_adapters.check")):
        ArrayAdapter(**options)
    refused = check("dataset=mine.yaml", "statistics=false")
    assert "missing=fill takes the mean of the training split" in refused.stdout
    done = check("dataset=mine.yaml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"u +train .* 12.50\n", done.stdout)
    sea = np.delete(u[:4], 2, axis=-1).astype(np.float64)
    adapter = ArrayAdapter(**options)
    assert adapter.statistics is not None
    assert adapter.statistics.std.item() == np.float32(sea.std())
    np.testing.assert_array_equal(adapter.read(0, 0, 5)[..., 2], np.float32(sea.mean()))
    adapter.close()

    u[1, 3] = np.nan
    store(tmp_path / "mine_0.h5", u=u)
    lost = check("dataset=mine.yaml")
    assert lost.returncode == 1
    assert "trajectory 1: field 'u': nothing but NaN in 1 frame(s), the first is frame 3" in lost.stdout


def test_a_folder_that_cannot_be_written(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "mine_0.h5", u=noise(4, 5, 8))
    describe(tmp_path)
    with monkeypatch.context() as patch:

        def refuse(path: Path, *arguments: Any, **options: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        patch.setattr(Path, "write_text", refuse)
        done = check("dataset=mine.yaml")
    assert done.returncode == 1
    assert "mine.stats.yaml: the statistics cannot be written: Permission denied; name another place" in done.stdout
    assert "statistics: /elsewhere/mine.stats.yaml" in done.stdout
    elsewhere = tmp_path / "elsewhere" / "mine.stats.yaml"
    options = describe(tmp_path, statistics=str(elsewhere))
    assert check("dataset=mine.yaml").returncode == 0
    assert elsewhere.exists()
    assert ArrayAdapter(**options).statistics is not None


def test_an_interrupted_write_leaves_nothing(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "mine_0.h5", u=noise(4, 5, 8))
    describe(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:

        def interrupt(path: Path, target: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(Path, "replace", interrupt)
        assert "interrupted" in check("dataset=mine.yaml").stderr
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize(("gap", "left_out"), [(3, 3), (0, 0)])
def test_splits_of_one_record_are_apart(check: Any, tmp_path: Path, gap: int, left_out: int) -> None:
    store(tmp_path / "mine_0.h5", u=noise(1, 50, 8))
    describe(tmp_path, splits={"by": "time", "gap": gap}, frames={"step": 1})
    done = check("dataset=mine.yaml")
    assert done.returncode == 0
    assert f"frames left out: {left_out} between train and valid, {left_out} between valid and test" in done.stdout
    assert ("valid starts with the frame after the last of train" in done.stdout) == (gap == 0)


def test_a_data_set_is_prepared_first(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPH_TRUST", "shutil")
    (tmp_path / "source").mkdir()
    store(tmp_path / "source" / "mine_0.h5", u=noise(4, 5, 8))
    copy = {"_target_": "shutil.copytree", "src": str(tmp_path / "source"), "dst": str(tmp_path), "dirs_exist_ok": True}
    describe(tmp_path, prepare=copy)
    assert check("dataset=mine.yaml").returncode == 0
    describe(tmp_path, "lost", prepare={**copy, "src": str(tmp_path / "nowhere")})
    failed = check("dataset=lost.yaml")
    assert failed.returncode == 1
    assert "nowhere" in failed.stdout


@pytest.mark.parametrize("reader", ["groups", "labelled"])
def test_other_readers(check: Any, tmp_path: Path, reader: str) -> None:
    u = noise(12, 5, 8)
    if reader == "groups":
        with h5py.File(tmp_path / "mine_0.h5", "w") as file:
            for row, values in enumerate(u):
                file[f"{row:02}/data"] = values[..., None]
        describe(
            tmp_path, _target_="data_adapters.hdf5.GroupAdapter", dims=["time", "x", "channel"],
            fields=[{"name": "u", "from": "data"}],
        )  # fmt: skip
    else:
        xr.Dataset({"u": (("run", "time", "x"), u)}).to_netcdf(tmp_path / "mine_0.nc", engine="h5netcdf")
        options = {"files": f"{tmp_path}/mine_0.nc", "sample": "run", "dt": 0.1, "splits": BLOCKS}
        (tmp_path / "mine.yaml").write_text(
            yaml.safe_dump({"_target_": "data_adapters.labelled.XarrayAdapter", **options})
        )
    done = check("dataset=mine.yaml", "json=numbers.json")
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = json.loads((tmp_path / "numbers.json").read_text())["datasets"]["mine"]
    assert numbers["splits"]["test"]["fields"]["u"]["mean"] == pytest.approx([u[11].mean()], rel=1e-5)
    assert numbers["used"]["std"] == pytest.approx([u[:10].std()], rel=1e-6)


def test_two_data_sets_of_the_same_files_have_statistics_of_their_own(check: Any, tmp_path: Path) -> None:
    store(tmp_path / "mine_0.h5", u=noise(6, 5, 8))
    files = str(tmp_path / "mine_*.h5")
    whole = describe(tmp_path, "whole", files=files)
    part = describe(tmp_path, "part", files=files, space={"x": {"stop": 4}})
    assert check("dataset=[whole.yaml,part.yaml]").returncode == 0
    for name, options in (("whole", whole), ("part", part)):
        assert ArrayAdapter(**options, name=name).statistics is not None
        assert (tmp_path / f"{name}.stats.yaml").is_file()


def test_statistics_are_of_these_files_in_this_order(check: Any, tmp_path: Path) -> None:
    """One file more, another order: other trajectories are for training, and the old scales would leak."""
    for number in (1, 2, 10):
        store(tmp_path / f"mine_{number}.h5", u=number * noise(3, 5, 8))
    options = describe(tmp_path)
    assert check("dataset=mine.yaml").returncode == 0
    assert ArrayAdapter(**options).statistics is not None
    with pytest.raises(ValueError, match=r"mine\.stats\.yaml: expected statistics of {'files'"):
        ArrayAdapter(**options, order="lexicographic")
    store(tmp_path / "mine_0.h5", u=noise(3, 5, 8))
    with pytest.raises(ValueError, match=r"mine\.stats\.yaml: expected statistics of"):
        ArrayAdapter(**options)
