"""Every shipped configuration builds, and every experiment runs."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiments.shortcuts import measure
from morph.data.adapter import DatasetAdapter
from morph.model.build import build
from tests.conftest import ROOT, run_module

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
# What a configuration of a baseline leaves to the data.
OF_DATA = {"dimensions": 2, "capacity": {"max_context": 2, "max_fields": 1, "max_components": 2}}
# The suite's; the others' files are not here.
DATASETS = sorted(path.stem for path in (ROOT / "conf" / "dataset").glob("*.yaml") if "prepare" in OmegaConf.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_validates_and_saves(suite_root: Path, tmp_path: Path, experiment: str) -> None:
    """One epoch of two steps on the tiny suite, with a small model where the experiment's would take minutes."""
    options = (
        "level=tiny", f"data_dir={suite_root}", "mixture.steps_per_epoch=2", "trainer.max_epochs=1",
        "loader.validation_windows=2",
    )  # fmt: skip
    model = ("model=nano", "model.dim=64", "model.depth=1")
    if "/finetune" in (text := (ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text()):
        # Its model is that of a first stage, which sees one frame.
        first = ("data=cfd1d", "window.context=1", "model.capacity.max_context=1", f"run_dir={tmp_path}/first")
        done = run_module("morph.train", *model, *options, *first, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        model = (f"checkpoint={tmp_path}/first", *(("data=dr1d",) if "data: null" in text else ()))
    run_dir = tmp_path / "run"
    done = run_module("morph.train", f"+experiment={experiment}", *model, *options, f"run_dir={run_dir}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (run_dir / "checkpoints" / "best.ckpt").is_file()
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_from_its_yaml_and_from_its_own_description(name: str) -> None:
    with torch.device("meta"):
        config = OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml")
        model = instantiate(config, **{key: value for key, value in OF_DATA.items() if config.get(key, key) is None})
        again = build(model.config)
    assert model.config == again.config
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_of_the_suite_opens_and_reads(suite_root: Path, name: str, split: str) -> None:
    config = OmegaConf.load(ROOT / "conf" / "dataset" / f"{name}.yaml")
    options = {"data_dir": str(suite_root), "level": "tiny", "suite_seed": 0}
    config = OmegaConf.merge(options, config)
    assert config.batch_size > 0
    adapter = instantiate({k: v for k, v in config.items() if k in ("_target_", "path", "fields")}, split=split)
    assert isinstance(adapter, DatasetAdapter)
    spec = adapter.spec
    assert spec.name == name
    assert len(spec.axes) == int(name[-2])
    frames = adapter.read(len(adapter) - 1, spec.num_steps - 2, spec.num_steps)
    assert frames.shape == (2, spec.num_fields, spec.num_components, *spec.spatial_shape)
    assert adapter.statistics is not None
    # The increment scale of the training split is that of the frames, up to the spread between trajectories.
    assert (adapter.statistics.rms_increment > 0).all()
    assert set(adapter.parameters(0)) == set(spec.parameters) != set()


def test_the_study_of_the_shortcuts_takes_each_of_them_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it still finds what it takes away; whether that is slower is for the machine to say."""
    monkeypatch.setattr(measure, "REPEATS", 1)
    seconds = measure.measure((1, 2, 2, 1, 1, 16, 16))
    assert set(seconds) == set(measure.WITHOUT)
    assert min(seconds.values()) > 0
