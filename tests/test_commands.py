"""The commands from a user's side: what they leave, and what they say when something is wrong."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import xarray as xr
import yaml

from tests.conftest import run_module
from tests.interruption import without_telemetry

FAST = (
    "model=nano",
    "model.dim=32",
    "model.depth=1",
    "mixture.steps_per_epoch=4",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="module")
def trained(suite_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small model on two tiny systems."""
    run_dir = tmp_path_factory.mktemp("runs") / "small"
    done = train(suite_root, f"run_dir={run_dir}", "data=[cfd1d,dr2d]", *FAST)
    assert done.returncode == 0, done.stderr
    return run_dir


def train_options(data: Path) -> tuple[str, ...]:
    return ("morph.train", f"data_dir={data}", "level=tiny", "loader.validation_windows=4")


def train(data: Path, *options: str, **environment: str) -> Any:
    return run_module(*train_options(data), *options, cwd=data, **environment)


def evaluate(data: Path, *options: str, **environment: str) -> Any:
    return run_module("morph.evaluate", *options, cwd=data, **environment)


def losses(run_dir: Path) -> list[str]:
    return without_telemetry((run_dir / "log" / "metrics.csv").read_text().splitlines())


def test_a_run_leaves_what_it_came_from_beside_its_checkpoints(trained: Path) -> None:
    kept = {p.name for p in (trained / "checkpoints").iterdir()}
    assert {"best.ckpt", "last.ckpt"} == {name for name in kept if not name.startswith("step_")} < kept
    config = yaml.safe_load((trained / "train.yaml").read_text())
    assert config["model"]["dim"] == 32
    assert "${" not in (trained / "train.yaml").read_text()
    origin = json.loads((trained / "train.json").read_text())
    assert "morph.train" in origin["command"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", origin["git"])
    header = losses(trained)[0].split(",")
    assert {"step", "train/loss", "val/ratio", "val/vrmse/cfd1d", "val/ratio/dr2d"} <= set(header)


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(suite_root: Path, trained: Path, tmp_path: Path) -> None:
    done = train(suite_root, f"run_dir={tmp_path}", "data=[cfd1d,dr2d]", *FAST, "loader.num_workers=1")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == losses(trained)


@pytest.mark.slow
def test_how_it_is_run_does_not_change_the_numbers(call: Any, suite_root: Path, trained: Path, tmp_path: Path) -> None:
    options = ("data=[cfd1d,dr2d]", *FAST, "execution.activation_checkpointing=true")
    done = call(*train_options(suite_root), f"run_dir={tmp_path}/run", *options, cwd=suite_root)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(trained)


def test_evaluation_is_labelled_and_complete(suite_root: Path, trained: Path, tmp_path: Path) -> None:
    done = evaluate(suite_root, f"checkpoint={trained}", f"run_dir={tmp_path}", "data=[cfd1d,mhd3d]")
    assert done.returncode == 0, done.stderr
    assert "mhd3d *" in done.stdout
    assert "unstable" in done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {"one_step_vrmse", "persistence_vrmse", "extrapolation_vrmse", "rollout_vrmse"} <= set(summary["cfd1d"])
    assert summary["cfd1d"]["zero_shot"] is False
    assert summary["mhd3d"]["zero_shot"] is True
    metrics = xr.open_dataset(tmp_path / "metrics.nc", group="mhd3d")
    assert metrics.rollout.dims == ("forecast", "trajectory", "lead_time", "field", "metric")
    vrmse = metrics.one_step.sel(metric="vrmse", forecast="model")
    assert float(vrmse.mean()) == pytest.approx(summary["mhd3d"]["one_step_vrmse"], rel=1e-6)
    with h5py.File(suite_root / "suite" / "tiny" / "mhd3d" / "data" / "test" / "mhd3d.hdf5") as file:
        assert metrics.parameter_viscosity.values == pytest.approx(file["scalars/viscosity"][:])
        rollouts = xr.open_dataset(tmp_path / "rollout.nc", group="mhd3d")
        truth = rollouts.magnetic_field_z.sel(source="truth")
        assert truth.dims == ("trajectory", "time", "x", "y", "z")
        stored = file["t1_fields/magnetic_field"][: truth.sizes["trajectory"], 4:, ..., 2]
        assert (truth.values == stored).all()
    figures = {p.name for p in (tmp_path / "figures").iterdir()}
    assert {"overview.png", "cfd1d_rollout.png", "cfd1d_error.png", "mhd3d_rollout.png"} <= figures


@pytest.mark.slow
def test_wandb_works_offline(suite_root: Path, tmp_path: Path) -> None:
    done = train(
        suite_root,
        f"run_dir={tmp_path}",
        "data=cfd1d",
        *FAST,
        "logger=wandb",
        "logger.offline=true",
        WANDB_SILENT="true",
    )
    assert done.returncode == 0, done.stderr
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    assert b"val/ratio/cfd1d" in files[0].read_bytes()


@pytest.mark.slow
def test_a_missing_suite_is_generated(tmp_path: Path) -> None:
    done = train(tmp_path, "run_dir=run", "data=burgers1d", *FAST)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "suite" / "tiny" / "burgers1d" / "stats.yaml").is_file()
    assert not (tmp_path / "suite" / "tiny" / "cfd1d").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("+experiment=pretrain",), r"Could not find 'experiment/pretrain'.*debug.*demo.*pretrain_mix"),
        (("data=cfd2d",), r"there is no data set 'cfd2d'; choose from .*cfd1d"),
        (("data=my.yaml",), r"there is no file my\.yaml; choose from"),
        (("learning_rate=3",), "Could not override 'learning_rate'"),
        (("seed=one",), "option seed: expected an integer, found 'one'"),
        (("trainer.max_epochs=1.5",), r"option trainer\.max_epochs: expected an integer, found 1\.5"),
        (("level=medium", "data=cfd1d"), r"level.*tiny, small.*full.*medium"),
        (
            ("data=cfd1d", "model.capacity.max_fields=2", *FAST),
            "data set 'cfd1d' has 3 fields, the model takes at most 2",
        ),
        (("data=cfd1d", "window.context=40"), r"have 21 frames, a window of 40 context and 1 target frames needs 41"),
        (("data=cfd1d", "window.context=5", *FAST), r"has 5 context frames, the model takes at most 4.*max_context=5"),
        (("data=cfd1d", "mixture.weights={dr2d: 1}"), "a number for each of cfd1d, found dr2d"),
        (("resume=nowhere",), "there is nothing at nowhere"),
        (("data=cfd1d", "execution.attention=fast", *FAST), "attention: expected one of auto, flash, .*, found 'fast'"),
        (("data=cfd1d", "trainer.precision=fp8", *FAST), "precision: expected 32-true, .*, found 'fp8'"),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    call: Any, suite_root: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = call(*train_options(suite_root), f"run_dir={tmp_path}/run", *options, cwd=suite_root)
    assert done.returncode == 1
    assert re.search(message, done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_to_go_on_by_itself_needs_its_folder(call: Any, tmp_path: Path) -> None:
    done = call("morph.train", "resume=auto", cwd=tmp_path)
    message = "error: resume=auto starts or continues the run in run_dir: give run_dir=<its folder>"
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.parametrize("fault", ["model.capacity.max_fields=2", "window.context=40", "data=nope"])
def test_a_run_that_cannot_start_replaces_none(call: Any, suite_root: Path, tmp_path: Path, fault: str) -> None:
    kept = tmp_path / "run" / "checkpoints" / "best.ckpt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weeks of training")
    options = ("data=cfd1d", *FAST, f"run_dir={tmp_path}/run", "overwrite=true", fault)
    done = call(*train_options(suite_root), *options, cwd=suite_root)
    assert done.returncode == 1
    assert kept.read_bytes() == b"weeks of training"


def test_an_unknown_field_names_the_fields_that_are_there(call: Any, suite_root: Path, tmp_path: Path) -> None:
    path = suite_root / "suite" / "tiny" / "cfd1d"
    config = {"_target_": "data_adapters.hdf5.WellAdapter", "path": str(path), "fields": ["vorticity"], "batch_size": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    done = call(*train_options(suite_root), f"data={tmp_path}/mine.yaml", f"run_dir={tmp_path}/run", cwd=suite_root)
    assert done.returncode == 1
    assert re.search(r"cfd1d.*'vorticity'.*density.*pressure.*velocity", done.stderr, re.DOTALL), done.stderr


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_a_damaged_data_file_is_named(call: Any, suite_root: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "suite" / "tiny" / "cfd1d"
    shutil.copytree(suite_root / "suite" / "tiny" / "cfd1d", copy)
    file = copy / "data" / "valid" / "cfd1d.hdf5"
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"a,b\n1,2\n" * 99}[damage])
    done = call(*train_options(tmp_path), "data=cfd1d", f"run_dir={tmp_path}/run", *FAST, cwd=tmp_path)
    assert done.returncode == 1
    assert "cfd1d" in done.stderr
    assert "valid" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "foreign"])
def test_a_checkpoint_that_is_none_is_named(
    call: Any, suite_root: Path, trained: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "model.ckpt"
    whole = (trained / "checkpoints" / "best.ckpt").read_bytes()
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"weights\n" * 99, "foreign": None}
    if damage == "foreign":
        import torch

        torch.save({"model_state_dict": {}, "epoch": 3}, path)
    elif damage != "missing":
        path.write_bytes(content[damage])
    done = call("morph.evaluate", f"checkpoint={path}", f"run_dir={tmp_path}/out", cwd=suite_root)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten_unasked(call: Any, suite_root: Path, trained: Path) -> None:
    done = call(*train_options(suite_root), f"run_dir={trained}", "data=cfd1d", *FAST, cwd=suite_root)
    assert done.returncode == 1
    assert "already holds a run" in done.stderr
    assert "overwrite=true" in done.stderr


def test_resuming_with_another_architecture_says_which_option_differs(
    call: Any, suite_root: Path, trained: Path
) -> None:
    done = call(
        *train_options(suite_root), f"resume={trained}", "data=[cfd1d,dr2d]", *FAST, "model.dim=64", cwd=suite_root
    )
    assert done.returncode == 1
    assert "model.dim=32, now 64" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "limit"), [("morph.train", 2_000), ("morph.train", 60_000), ("morph.evaluate", 60_000)]
)
def test_a_full_disk_leaves_nothing_half_written(
    suite_root: Path, trained: Path, tmp_path: Path, module: str, limit: int
) -> None:
    """A limit on the size of files stands in for a full disk: the kernel refuses the same writes."""
    (tmp_path / "limited.py").write_text(
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
    )
    out = tmp_path / "out"
    options = {
        "morph.evaluate": (f"checkpoint={trained}", f"run_dir={out}", "data=cfd1d"),
        "morph.train": (f"run_dir={out}", f"data_dir={suite_root}", "level=tiny", "data=cfd1d", *FAST),
    }
    done = run_module("limited", module, *options[module], cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search("error: (checkpoint: .* could not be written: )?File too large", done.stderr)
    assert "Traceback" not in done.stderr
    for path in (p for p in out.rglob("*") if p.is_file() and p.name not in (".lock", ".wandb_id")):
        assert not path.name.startswith("."), path
        assert path.stat().st_size < limit, path
        assert path.suffix != ".ckpt", path
        if path.suffix == ".nc":
            assert xr.open_dataset(path, group="cfd1d").sizes["trajectory"] > 0


@pytest.mark.slow
def test_a_data_set_of_ones_own_trains_under_its_own_name(suite_root: Path, tmp_path: Path) -> None:
    """The README's YAML: its file name is not what the data files call themselves."""
    path = suite_root / "suite" / "tiny" / "cfd1d"
    config = {"_target_": "data_adapters.hdf5.WellAdapter", "path": str(path), "batch_size": 2}
    config["fields"] = ["velocity", {"name": "p", "from": "pressure", "unit": "Pa"}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    done = train(suite_root, f"data={tmp_path}/mine.yaml", f"run_dir={tmp_path}/run", *FAST)
    assert done.returncode == 0, done.stderr
    assert "(mine " in done.stdout
    # The run remembers where its YAML is.
    judged = evaluate(tmp_path, f"checkpoint={tmp_path}/run", "figures=false")
    assert judged.returncode == 0, judged.stderr
    rollouts = xr.open_dataset(tmp_path / "run" / "evaluation" / "rollout.nc", group="mine")
    assert rollouts.p.attrs["units"] == "Pa"
    recorded = yaml.safe_load((tmp_path / "run" / "evaluation" / "evaluate.yaml").read_text())
    assert recorded["datasets"]["mine"]["path"] == str(path)
    (tmp_path / "mine.yaml").unlink()
    lost = evaluate(tmp_path, f"checkpoint={tmp_path}/run")
    assert lost.returncode == 1
    assert re.search(r"data: there is no file \S+/mine\.yaml", lost.stderr)


def test_a_command_that_lacks_an_option_says_which(call: Any, tmp_path: Path) -> None:
    done = call("morph.evaluate", cwd=tmp_path)
    assert done.stderr == "error: checkpoint is needed: give checkpoint=...; --help says what it is"


def test_help_shows_options_and_examples(call: Any, tmp_path: Path) -> None:
    for module in ("morph.train", "morph.evaluate"):
        shown = call(module, "--help", cwd=tmp_path)
        assert shown.returncode == 0
        assert f"python -m {module}" in shown.stdout
        assert "run_dir" in shown.stdout
        assert "$" + "CONFIG" not in shown.stdout
    # Options stand there with what they mean, also those of a chosen group; a group without a choice names its entries.
    shown = call("morph.train", "--help", cwd=tmp_path).stdout
    assert "seed: 0            # of data order, initialisation and dropout" in shown
    assert "finetune: null # decoder | full | lora | lora_encoder" in shown
    assert "  dim: 256" in shown.split("model: # model=ti")[1]
    assert "hydra" not in shown
    composed = call("morph.train", "model=nano", "--help", cwd=tmp_path).stdout
    assert "dim: 128" in composed


def test_one_console_command_for_all(call: Any, tmp_path: Path) -> None:
    listed = call("morph.__main__", cwd=tmp_path)
    assert listed.returncode == 0
    assert "morph train" in listed.stdout
    unknown = call("morph.__main__", "fly", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "unknown command 'fly'; expected one of train, evaluate" in unknown.stderr
    assert run_module("morph", "evaluate", "--help", cwd=tmp_path).stdout.startswith("Roll a checkpoint out")
