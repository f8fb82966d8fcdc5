"""What the README shows works: its Python is run, its options and files exist."""

import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from data_adapters.hdf5 import WellAdapter
from experiments.survival import hostile
from morph.forecast_input import from_reader
from tests.conftest import ROOT, run_module
from tests.published_files import SIZES, published_state, save

README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_its_commands_and_snippets_run(call: Any, suite_root: Path, tmp_path: Path) -> None:
    """The Python snippets on a run named as there, made small."""
    train = run_module(
        "morph.train", "+experiment=demo", "level=tiny", f"data_dir={suite_root}", "mixture.steps_per_epoch=2",
        "trainer.max_epochs=1", "loader.validation_windows=2", "model.dim=32", "model.depth=1", "model.heads=4",
        "model.mlp_dim=64", "model.field_heads=8", cwd=tmp_path,
    )  # fmt: skip
    assert train.returncode == 0, train.stderr
    commands = [
        line.split("#")[0].split()[2:] for line in README.splitlines() if line.startswith("python -m morph.evaluate")
    ]
    assert len(commands) == 10
    (published,) = (command for command in commands if command[1].endswith(".pth"))
    published += [f"data_dir={suite_root}", "level=tiny", "steps=2"]
    (ensemble,) = (command for command in commands if "members=16" in command)
    ensemble += ["data=[cfd1d]", "steps=2"]
    for other in ("scratch", "ns2d", "fno", "unet", "ar1"):
        copytree(tmp_path / "runs" / "demo", tmp_path / "runs" / other)
    save(tmp_path / "morph-Ti-FM-max_ar1_ep225.pth", published_state(**SIZES["Ti"]))
    for command in [*commands, ["morph.evaluate", "checkpoint=runs/demo", "run_dir=runs/demo"]]:
        done = call(*command, "one_step_windows=4", "steps=3", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    # What `my.nc` is to be: data like one of the sets of the training.
    files = str(suite_root / "suite" / "tiny" / "dr2d")
    from_reader(WellAdapter(files, "test", fields=["u", "v"])).to_netcdf(tmp_path / "my.nc", engine="h5netcdf")
    predictions = [
        line.split("#")[0].split()[2:] for line in README.splitlines() if line.startswith("python -m morph.predict")
    ]
    assert len(predictions) == 3
    for command in predictions:
        done = call(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    fields = {"_target_": "data_adapters.hdf5.WellAdapter", "path": files, "fields": ["u", "v"], "batch_size": 2}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(fields))
    tune = next(line.split()[2:] for line in README.splitlines() if "+experiment=lora_finetune" in line)
    small = ("mixture.steps_per_epoch=2", "trainer.max_epochs=1", "loader.validation_windows=2")
    done = call(*tune, *small, "trainer.log_every_n_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 5
    shown = ""
    for i, snippet in enumerate(snippets):
        (tmp_path / f"snippet{i}.py").write_text(snippet)
        done = run_module(f"snippet{i}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        shown += done.stdout
    assert "torch.Size([1, 2, 1, 1, 48, 60])" in shown
    assert "('trajectory', 'time', 'x', 'y') 0." in shown
    (export,) = (
        line.split("#")[0].split() for line in README.splitlines() if line.startswith("python -m morph.export")
    )
    done = call(*export[2:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_its_other_commands_compose(call: Any, tmp_path: Path) -> None:
    shown = ("python -m morph.train", "python -m morph.benchmark", "python -m morph.replay")
    commands = [line.split("#")[0].split() for line in README.splitlines() if line.startswith(shown)]
    assert len(commands) == 1 + 7 + 1 + 2 + 2 + 3 + 1 + 6
    for command in commands:
        if "--multirun" in command:  # of which this shows the first job; tests/test_processes.py runs some
            command = [option.split(",")[0] for option in command if option != "--multirun"]
        done = call(*command[2:], "--cfg", "job", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_its_commands_for_files_from_strangers(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trusted,) = (line.split("#") for line in README.splitlines() if line.startswith("MORPH_TRUST="))
    setting, _, _, *command = trusted[0].split()
    reader = trusted[1].split()[-1]
    (tmp_path / "their.yaml").write_text(yaml.safe_dump({"_target_": reader, "batch_size": 2}))
    monkeypatch.delenv("MORPH_TRUST")
    refused = call(*command, cwd=tmp_path)
    assert refused.stderr.endswith(f"if it is your own, trust its package: {setting}")
    monkeypatch.setenv(*setting.split("="))
    assert "No module named 'mypackage'" in call(*command, cwd=tmp_path).stderr  # it is looked for
    (study,) = (line.split("#")[0].split() for line in README.splitlines() if "survival.hostile" in line)
    monkeypatch.setattr(hostile, "CASES", [])
    assert call(*study[2:], cwd=tmp_path).returncode == 0
    assert (tmp_path / "runs" / "hostile" / "hostile.md").exists()


def test_its_launchers_get_options_that_compose(call: Any, tmp_path: Path) -> None:
    """What torchrun and srun start; tests/test_processes.py runs such processes."""
    lines = [line for line in README.splitlines() if line.startswith(("torchrun ", "srun "))]
    assert len(lines) == 2
    for line in lines:
        launcher, _, options = line.partition("-m morph.train ")
        assert launcher.startswith(("torchrun --nproc_per_node=", "srun --nodes=2 --ntasks-per-node="))
        done = call("morph.train", *options.split(), "--cfg", "job", cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_its_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_its_figures_are_small() -> None:
    figures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert figures
    for figure in figures:
        assert (ROOT / figure).stat().st_size < 200_000, figure
