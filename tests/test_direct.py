"""A file in place of a data set's YAML: the same configuration, the same data, and where it is unclear the way out."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import yaml
from hydra import initialize_config_dir

from data_adapters.inspect import dataset_of, name_of
from morph.data.catalogue import find_datasets, open_split, own_files
from tests.conftest import ROOT
from tests.inspected import Inspected, hdf5, in_folder, values
from tests.well_files import coded_file, write

SMALL = (
    "model=nano", "model.dim=32", "model.depth=1", "mixture.steps_per_epoch=2",
    "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "trainer.accelerator=cpu", "loader.validation_windows=1",
    "window.context=2", "batch_size=2", "overwrite=true",
)  # fmt: skip


@pytest.fixture
def inspected(call: Callable[..., Any], tmp_path: Path) -> Iterator[Inspected]:
    yield from in_folder(call, tmp_path)


def record(num_steps: int = 60, seed: int = 0) -> xr.Dataset:
    """One record of a vector and a scalar, with land."""
    land = np.zeros((6, 8), bool)
    land[2:4, 3:] = True
    fields = {
        name: (("time", "lat", "lon"), np.where(land, np.nan, values(num_steps, 6, 8, seed=seed + i)))
        for i, name in enumerate(("u", "v", "T"))
    }
    return xr.Dataset(fields, {"time": ("time", 6.0 * np.arange(num_steps), {"units": "hours since 1900-01-01"})})


def runs(folder: Path, count: int = 4) -> None:
    """A file for each trajectory."""
    folder.mkdir()
    for i in range(count):
        hdf5(folder / f"r_{i}.h5", {"u": values(9, 8, seed=i), "t": np.arange(9.0), "x": np.arange(8.0)})


def written(folder: Path, kind: str) -> tuple[str, dict[str, Any]]:
    """A data set of a kind: its path and the options that it needs."""
    if kind == "my.nc":
        record().to_netcdf(folder / kind)
    elif kind == "cube.zarr":
        arrays = {n: (("sample", "time", "y", "x"), values(5, 12, 6, 8, seed=i)) for i, n in enumerate(("rho", "p"))}
        xr.Dataset(arrays, {"time": 0.5 * np.arange(12.0)}).to_zarr(folder / kind, zarr_format=2)
    elif kind == "coded":
        for split, trajectories in (("train", range(3)), ("valid", range(3, 5)), ("test", range(5, 6))):
            write(folder / kind, coded_file("xy", trajectories), split=split)
    elif kind == "bare.h5":
        hdf5(folder / kind, {"u": values(10, 13, 8, 8)})
        return kind, {"dims": ["sample", "time", "x", "y"], "dt": 0.5, "boundary": {"x": "periodic", "y": "wall"}}
    else:
        runs(folder / "runs")
    return kind, {}


KINDS = ["my.nc", "cube.zarr", "coded", "bare.h5", "runs", "runs/", "runs/*.h5", "runs/r_*.h5"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_the_command_writes(
    inspected: Inspected, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mapping, the name, and so the place of its scales; split by split the same numbers."""
    path, options = written(inspected.folder, kind)
    given = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in options.items()]
    expected = inspected.write(path, *given)
    before = sorted(inspected.folder.rglob("*"))
    capsys.readouterr()
    monkeypatch.chdir(inspected.folder)
    config = dataset_of(path, **options)
    assert config == expected
    assert sorted(inspected.folder.rglob("*")) == before
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: fields ")
    assert line.endswith(f"; python -m data_adapters.inspect {shlex.quote(path)} says more")
    (yaml_file,) = inspected.folder.glob("*.yaml")
    assert (name_of(path), name_of(os.path.abspath(path))) == (yaml_file.stem, yaml_file.stem)
    for split in ("train", "valid", "test"):
        ours, theirs = open_split(config, split, name_of(path)), inspected.open(split)
        assert [f.components for f in ours.spec.fields] == [f.components for f in theirs.spec.fields]
        np.testing.assert_array_equal(ours.read(0, 0, 2), theirs.read(0, 0, 2))


def test_the_line_says_what_was_understood(
    inspected: Inspected, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inspected.folder)
    said = {}
    record(11).to_netcdf("few.nc")
    for kind in ("my.nc", "coded", "runs", "few.nc"):
        if kind != "few.nc":
            written(inspected.folder, kind)
        dataset_of(kind)
        said[kind] = capsys.readouterr().out.partition("; python -m")[0]
    assert said == {
        "my.nc": "my.nc: fields velocity (2), T; axes lat 6 x lon 8; 60 frames; split by time; missing: mask; boundary "
        "open (assumed)",
        "few.nc": "few.nc: fields velocity (2), T; axes lat 6 x lon 8; 11 frames; split by time; missing: mask; "
        "boundary open (assumed); short: window.context=2",
        "coded": "coded: fields density, pressure, velocity (2); axes x 3 x y 4; 7 frames; split by its folders",
        "runs": "runs: fields u; axes x 8; 4 trajectories of 9 frames; split by trajectory; boundary open (assumed)",
    }
    marked = record()
    marked["T"][:, 0, 0] = -9999.0
    marked.to_netcdf("marked.nc")
    dataset_of("marked.nc")
    assert "marked.nc: T: -9999 looks like a mark of missing values; it is read as a value\n" in capsys.readouterr().out


def test_a_question_is_an_error_that_names_the_commands(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the error are those of the question, and lead to a YAML of the name that the error gives."""
    path, options = written(inspected.folder, "bare.h5")
    asked = inspected.ask(path)
    monkeypatch.chdir(inspected.folder)
    with pytest.raises(ValueError, match=r"what are its axes\?") as error:
        dataset_of(path)
    shown = re.findall(r"^  python -m data_adapters.inspect (.*)$", str(error.value), re.MULTILINE)
    assert [shlex.split(line) for line in shown] == asked
    assert str(error.value).endswith("writes bare.yaml with the answer, to be named in its place: data=bare.yaml")
    with pytest.raises(ValueError, match="How much time lies between") as error:
        dataset_of(path, dims=options["dims"])
    (shown,) = re.findall(r"^  python -m data_adapters.inspect (.*)$", str(error.value), re.MULTILINE)
    inspected.write(*shlex.split(shown))
    assert (inspected.folder / "bare.yaml").exists()
    # Of two formats in a folder, one is named instead.
    runs(inspected.folder / "runs")
    record().to_netcdf(inspected.folder / "runs" / "a.nc")
    with pytest.raises(ValueError, match="several formats; which of them") as error:
        dataset_of("runs")
    answers = [line.split()[0] for line in str(error.value).splitlines()[1:]]
    assert sorted(answers) == ["runs/*.h5", "runs/*.nc"]
    assert dataset_of("runs/*.h5")["files"] == str(inspected.folder / "runs" / "*.h5")
    with pytest.raises(ValueError, match="expected options of name, dims"):
        dataset_of(path, dim=["time"])


def test_too_little_to_divide_is_read_whole(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be divided keeps its rule, on which the scales depend."""
    monkeypatch.chdir(inspected.folder)
    stored = record(60)
    stored.to_netcdf("my.nc")
    assert dataset_of("my.nc", whole=True) == dataset_of("my.nc")
    stored.isel(time=slice(3)).to_netcdf("few.nc")
    stored.isel(time=slice(1)).to_netcdf("one.nc")
    for path in ("few.nc", "one.nc"):
        with pytest.raises(ValueError, match=r"expected (6|two) or more frames"):
            dataset_of(path)
    for path, options, count in (("my.nc", {}, 60), ("few.nc", {}, 3), ("one.nc", {"dt": 6}, 1)):
        whole = open_split(dataset_of(path, whole=True, **options), "all", "it")
        assert (len(whole), whole.spec.num_steps, whole.spec.dt) == (1, count, 6.0)
        np.testing.assert_array_equal(whole.read(0, 0, count)[:, 1, 0, 0], stored["T"][:count].astype(np.float32))


def test_names_and_places_are_found_together(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the commands use it: by name, what is read and where it is found again."""
    monkeypatch.chdir(inspected.folder)
    runs(inspected.folder / "runs")
    record(3).to_netcdf("few.nc")
    (inspected.folder / "mine.yaml").write_text("{_target_: data_adapters.hdf5.WellAdapter, path: x}")
    names = ["cfd1d", "mine.yaml", "few.nc", "runs/r_*.h5", "memory://a/b.nc"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert own_files(names) == {
            "mine": str(inspected.folder / "mine.yaml"),
            "few": str(inspected.folder / "few.nc"),
            "r": str(inspected.folder / "runs" / "r_*.h5"),
            "b": "memory://a/b.nc",
        }
        options = {"data_dir": "data", "level": "tiny", "suite_seed": 0}
        found = find_datasets(names[:4], options, whole=True)
        assert list(found) == ["cfd1d", "mine", "few", "r"]
        assert find_datasets(list(own_files(names[:4]).values())[1:], {}, whole=True) == {
            name: found[name] for name in ("few", "r")
        }
    few = open_split(found["few"], "all", "few")
    assert (few.spec.name, few.spec.num_steps) == ("few", 3)
    assert len(open_split(found["r"], "all", "r")) == 4


def test_training_and_judging_by_the_path_alone(inspected: Inspected) -> None:
    """A file and a pattern, checked, trained on and found again from another folder; scales as with a YAML."""
    folder, call = inspected.folder, inspected.call
    written(folder, "my.nc")
    runs(folder / "runs")
    config = inspected.write("my.nc")
    paths = "[my.nc,runs/*.h5]"
    checked = call("data_adapters.check", f"dataset={paths}", cwd=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("says more") == 2
    assert f"statistics: {folder}/my.stats.yaml, written" in checked.stdout
    assert f"statistics: {folder}/my.stats.yaml, as it was" in call(
        "data_adapters.check", "dataset=my.yaml", cwd=folder
    ).stdout  # fmt: skip
    trained = call("morph.train", f"data={paths}", "model.normalisation=dataset", *SMALL, "run_dir=run", cwd=folder)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert trained.stdout.count("says more") == 2
    assert "(my " in trained.stdout
    recorded = yaml.safe_load((folder / "run" / "train.yaml").read_text())
    assert recorded["datasets"]["my"] == config
    assert list(recorded["datasets"]) == ["my", "runs"]
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    short = ("one_step_windows=1", "figures=false")
    judged = call("morph.evaluate", "checkpoint=../run", "steps=1", *short, cwd=elsewhere)
    assert judged.returncode == 0, judged.stderr
    truth = xr.open_dataset(folder / "run" / "evaluation" / "rollout.nc", group="my")["T"].sel(source="truth")
    first = 60 - config["splits"]["test"] + config["splits"]["gap"]  # of the test split
    stored = xr.open_dataset(folder / "my.nc")["T"][first + 2]  # behind the context
    np.testing.assert_array_equal(truth.isel(trajectory=0, time=-1), stored.astype(np.float32))
    whole = ("data=my.nc", "split=all", "run_dir=all")
    everything = call("morph.evaluate", "checkpoint=run", *whole, *short, cwd=folder)
    assert everything.returncode == 0, everything.stderr
    assert xr.open_dataset(folder / "all" / "metrics.nc", group="my").rollout.sizes["lead_time"] == 58
    (folder / "my.nc").unlink()
    lost = call("morph.evaluate", "checkpoint=run", cwd=folder)
    assert lost.returncode == 1
    assert f"data: {folder}/my.nc: there is no such file" in lost.stderr


def test_a_name_that_is_known_wins_and_a_typo_is_told(inspected: Inspected, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, call = inspected.folder, inspected.call
    (folder / "cfd1d").write_text("no data")
    written(folder, "bare.h5")
    written(folder, "my.nc")
    (folder / "other").mkdir()
    record(seed=9).to_netcdf(folder / "other" / "my.nc")

    def refused(data: str) -> str:
        done = call("data_adapters.check", f"dataset={data}", "level=none", cwd=folder)
        assert done.returncode == 1
        return str(done.stderr)

    known = call("data_adapters.check", "dataset=cfd1d", "level=none", cwd=folder)
    assert "level" in known.stdout + known.stderr  # what generates the suite was asked, not the file
    assert "no data" not in known.stdout + known.stderr
    assert re.search(r"there is no data set 'cfd1'; choose from .*cfd1d", refused("cfd1"))
    assert "data: mine.nc: there is no such file; . holds" in refused("mine.nc")
    assert "data: cfd1.nc: there is no such file" in refused("cfd1.nc")
    assert "or choose from cfd1d" in refused("cfd1.nc")
    assert "data: no/where: there is no such file; the folder no does not exist" in refused("no/where")
    assert "data: runs_*.h5: no file matches" in refused("runs_*.h5")
    assert "data: 'my' is named twice" in refused("[my.nc,other/my.nc]")
    assert "what are its axes? Nothing in the file says so" in refused("bare.h5")
    assert "data=bare.yaml" in refused("[my.nc,bare.h5]")
    assert "cfd1d: expected NetCDF, HDF5, Zarr or GRIB, found a text file" in refused("./cfd1d")


def test_a_url_stays_as_it_is(inspected: Inspected) -> None:
    record()[["T"]].to_netcdf(inspected.folder / "a.nc")
    system = fsspec.filesystem("memory")
    system.pipe("/direct/a.nc", (inspected.folder / "a.nc").read_bytes())
    try:
        assert dataset_of("memory://direct/a.nc")["files"] == "memory://direct/a.nc"
        options = ("data=memory://direct/a.nc", *SMALL, "run_dir=run")
        done = inspected.call("morph.train", *options, cwd=inspected.folder)
        assert done.returncode == 0, done.stderr
        again = ("checkpoint=run", "one_step_windows=1", "steps=1", "figures=false")
        judged = inspected.call("morph.evaluate", *again, cwd=inspected.folder)
        assert judged.returncode == 0, judged.stderr
        assert "memory://direct/a.nc: fields T" in judged.stdout
    finally:
        system.rm("/direct", recursive=True)
    assert name_of("https://data.org/files/sst_2020.nc?download=1") == "sst_2020"


def test_the_library_names_no_reader() -> None:
    """What a path means is said by a file of the configuration."""
    content = yaml.safe_load((ROOT / "conf" / "from_file.yaml").read_text())
    assert {key: entry["_target_"] for key, entry in content.items()} == {
        "name": "data_adapters.inspect.name_of",
        "dataset": "data_adapters.inspect.dataset_of",
    }
