"""The image without an engine: hadolint, its steps in a clean environment.  The launch files by their own tools."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from tests.conftest import ROOT
from tests.dockerfile import Image, arguments, build, context, read_stages, read_steps

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
TORCH = "https://download.pytorch.org/whl/"


def _tool(name: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program that a package of the test extra brings, beside this Python."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is missing: pip install -c constraints.txt -e '.[test]'"
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run([found, *options], cwd=ROOT, env=variables, capture_output=True, text=True)


def test_hadolint_and_shellcheck_find_nothing() -> None:
    lint = _tool("hadolint", "--no-color", str(DOCKER / "Dockerfile"))
    assert (lint.returncode, lint.stdout) == (0, "")
    check = _tool("shellcheck", str(DOCKER / "slurm.sbatch"))
    assert (check.returncode, check.stdout) == (0, "")
    assert "ignore=" not in DOCKERFILE
    assert "shellcheck disable" not in (DOCKER / "slurm.sbatch").read_text()


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("g++=4:12.2.0-3", "g++"))
    lint = _tool("hadolint", "--no-color", str(tmp_path / "Dockerfile"))
    assert lint.returncode == 1
    assert "DL3008" in lint.stdout


def test_the_image_is_pinned_and_not_of_root() -> None:
    defaults = arguments(DOCKERFILE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", defaults["PYTHON_IMAGE"])
    bases = [step.text.split()[0] for step in read_steps(DOCKERFILE) if step.name == "FROM"]
    assert set(bases) == {"${PYTHON_IMAGE}"}
    last = read_stages(DOCKERFILE)["final"]
    assert [step.text for step in last if step.name == "USER"] == ["${UID}"]
    assert int(defaults["UID"]) > 0
    # Whatever runs before a file of the package is copied does not run again when one changes.
    names = [step.text for step in read_stages(DOCKERFILE)["packages"] if step.name == "COPY"]
    assert names == ["constraints.txt ./", "--from=requirements /src/requirements.txt ./"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    # Those that its own commands use: neither the tests nor the folder experiments are in it.
    assert set(defaults["EXTRAS"].split()) == extras.keys() - {"test", "generators"}


def _tracked() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def test_the_context_is_the_package_alone() -> None:
    package = ("morph", "conf", "data_adapters")
    inside = {name for name in _tracked() if name.split("/")[0] in package}
    around = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    outside = [
        ".git/HEAD",
        ".venv/bin/python",
        "data/suite/a.h5",
        "runs/a/last.ckpt",
        "wandb/a",
        "docker/.env",
        "my.nc",
    ]
    outside += ["morph/__pycache__/a.cpython-311.pyc", "morph/data/__pycache__/b.pyc", "conf/c.pyc"]
    assert set(context(ROOT, [*_tracked(), *outside])) == inside | around
    copied = [step.text.split() for steps in read_stages(DOCKERFILE).values() for step in steps if step.name == "COPY"]
    assert {word for words in copied if "--from" not in words[0] for word in words[:-1]} == {*package, *around}


def _run(command: str, folder: Path, environment: dict[str, str]) -> None:
    variables = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    # Compiling every module of every package is most of the time, and is of no use to one run.
    variables |= {"HOME": os.environ.get("HOME", "/"), "PIP_NO_COMPILE": "0", **environment}
    done = subprocess.run(["sh", "-euc", command], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The steps of the Dockerfile, run in a folder for each stage, for the CPU."""
    folder = tmp_path_factory.mktemp("image")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "probe")]
    tried = subprocess.run([*probe, "-c", str(ROOT / "constraints.txt"), "einops"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"pip reaches no package index: {tried.stderr.strip().splitlines()[-1:]}")
    for name in context(ROOT, _tracked()):
        (folder / "context" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "context" / name)
    index = f'--index-url "{TORCH}${{TORCH}}"'
    assert DOCKERFILE.count(index) == 1
    try:
        urlopen(f"{TORCH}cpu/", timeout=10).close()
        index = ""
    except (URLError, TimeoutError) as error:
        print(f"{TORCH} cannot be reached ({error}): torch comes from the index that pip is set to")

    def run(command: str, folder: Path, environment: dict[str, str]) -> None:
        _run(command.replace(index, "") if index else command, folder, environment)

    (folder / "stages").mkdir()
    values = {"TORCH": "cpu", "EXTRAS": "suite"}
    yield build(DOCKER / "Dockerfile", folder / "context", folder / "stages", values, run)
    shutil.rmtree(folder)  # two gigabytes, which pytest would keep for three runs


@pytest.mark.slow
def test_its_steps_make_an_environment_that_trains(image: Image, suite_root: Path) -> None:
    assert image.skipped == ["apt-get"]
    assert image.user == "1000"
    assert image.entrypoint == ["morph"]
    assert image.workdir == image.root / "work"
    written = [name for name, value in image.environment.items() if value.startswith(f"{image.root}/cache")]
    assert set(written) > {"HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME"}
    assert all((image.root / name).stat().st_mode & 0o7777 == 0o1777 for name in ("cache", "work", "work/runs"))
    (morph,) = (str(image.root / "opt/morph/bin" / name) for name in image.entrypoint)

    def run(*command: str) -> str:
        environment = {**image.environment, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=image.workdir, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "morph train" in run(morph, "--help")
    small = ("data=[cfd1d]", "mixture.steps_per_epoch=2", "trainer.max_epochs=1", "loader.validation_windows=2")
    run(morph, "train", "+experiment=debug", f"data_dir={suite_root}", "run_dir=runs/debug", *small)
    assert (image.workdir / "runs/debug/checkpoints/best.ckpt").is_file()
    stated = json.loads((image.workdir / "runs/debug/train.json").read_text())
    assert stated["git"] is None
    where = (
        "import morph, data_adapters, exponax, torch; print(morph.__file__, data_adapters.__file__, torch.__version__)"
    )
    *found, torch = run(str(Path(morph).with_name("python")), "-c", where).split()
    assert all(path.startswith(f"{image.root}/opt/morph/") for path in found)
    pinned = re.search(r"^torch==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert torch.split("+")[0] == pinned[1]


def _compose(**variables: str) -> dict[str, Any]:
    """The service as Compose reads it: variables or their defaults in place, the command split as a shell would."""
    text = (DOCKER / "compose.yaml").read_text()
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], text)
    assert "${" not in re.sub("#.*", "", text), "each variable has a default"
    service: dict[str, Any] = yaml.safe_load(text)["services"]["train"]
    return {**service, "command": shlex.split(service["command"])}


def _composed(call: Any, folder: Path, options: list[str]) -> str:
    """The configuration that options of training make, as `--cfg job` prints it."""
    done = call("morph.train", *options, "--cfg", "job", cwd=folder)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_compose_runs_and_continues_on_all_devices(call: Any, tmp_path: Path) -> None:
    service = _compose()
    assert service["build"]["args"].keys() <= arguments(DOCKERFILE).keys()
    assert service["build"]["args"]["TORCH"] == arguments(DOCKERFILE)["TORCH"]
    assert str(service["build"]["args"]["UID"]) == str(service["user"]) == arguments(DOCKERFILE)["UID"]
    assert (service["build"]["context"], service["build"]["dockerfile"]) == ("..", "docker/Dockerfile")
    assert [(mount["source"], mount["target"]) for mount in service["volumes"]] == [
        ("../data", "/work/data"),
        ("../runs", "/work/runs"),
    ]
    (reserved,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (reserved["driver"], reserved["count"], reserved["capabilities"]) == ("nvidia", "all", ["gpu"])
    assert (service["init"], service["stop_signal"], service["restart"]) == (True, "SIGTERM", "on-failure:10")
    entry, *options = service["command"]
    assert entry == "train"
    shown = _composed(call, tmp_path, options)
    assert "run_dir: runs/pretrain_mix\n" in shown
    assert "resume: auto\n" in shown
    assert "  devices: -1\n" in shown


def test_compose_takes_variables(call: Any, tmp_path: Path) -> None:
    service = _compose(
        TORCH="cpu", GPUS="2", RUN="a", EXPERIMENT="debug", OWNER="1234", OPTIONS="seed=3 data=[cfd1d,dr2d]"
    )
    assert service["image"] == "morph:cpu"
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == "2"
    assert service["build"]["args"]["UID"] == service["user"] == 1234
    shown = _composed(call, tmp_path, service["command"][1:])
    assert "run_dir: runs/a\nseed: 3\n" in shown
    assert "- cfd1d\n- dr2d\n" in shown
    assert "  dim: 64\n" in shown


FAKE_SRUN = """#!{python}
import json, os, sys
with open("srun.json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
sys.exit(int(os.environ.get("FAKE_RESULT", 0)))
"""


def _sbatch(folder: Path, *options: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script as a job of number 77 would run it, with an srun that writes down how it is called."""
    (folder / "srun").write_text(FAKE_SRUN.format(python=sys.executable))
    (folder / "srun").chmod(0o755)
    found = _directives()
    job = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": found["nodes"],
        "SLURM_NTASKS_PER_NODE": found["ntasks-per-node"],
        "SLURM_CPUS_PER_TASK": found["cpus-per-task"],
    }
    done = subprocess.run(
        ["bash", str(DOCKER / "slurm.sbatch"), *options],
        cwd=folder, env={**job, **variables}, capture_output=True, text=True,
    )  # fmt: skip
    called = json.loads((folder / "srun.json").read_text())[0] if (folder / "srun.json").exists() else []
    return done, called


def _directives() -> dict[str, str]:
    lines = (DOCKER / "slurm.sbatch").read_text().splitlines()
    options = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in options}


def test_the_job_asks_for_one_task_per_gpu_and_a_signal_to_the_steps() -> None:
    found = _directives()
    assert found["ntasks-per-node"] == found["gpus-per-node"]
    assert found["signal"] == "SIGUSR1@120"
    assert found["open-mode"] == "append"
    assert "requeue" in found
    # SLURM reads them up to the first command.
    lines = (DOCKER / "slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if "#SBATCH" in line]


def test_the_job_trains_on_its_devices_and_continues(call: Any, tmp_path: Path) -> None:
    done, called = _sbatch(tmp_path, "+experiment=debug", "data=[cfd1d, dr2d]")
    assert done.returncode == 0, done.stderr
    assert called[:4] == ["--kill-on-bad-exit=1", "python", "-m", "morph.train"]
    assert json.loads((tmp_path / "srun.json").read_text())[1]["SRUN_CPUS_PER_TASK"] == "8"
    shown = _composed(call, tmp_path, called[4:])
    assert "run_dir: runs/slurm-77\n" in shown
    assert "resume: auto\n" in shown
    assert "  devices: 4\n" in shown
    assert "  num_nodes: 1\n" in shown
    assert "- cfd1d\n- dr2d\n" in shown
    _, again = _sbatch(tmp_path, "run_dir=runs/a", SLURM_JOB_NUM_NODES="2", SLURM_NTASKS_PER_NODE="8")
    shown = _composed(call, tmp_path, again[4:])
    assert "run_dir: runs/a\n" in shown
    assert "  devices: 8\n" in shown
    assert "  num_nodes: 2\n" in shown


def test_the_job_ends_as_its_training_does(tmp_path: Path) -> None:
    assert _sbatch(tmp_path, "+experiment=debug", FAKE_RESULT="3")[0].returncode == 3


@pytest.mark.parametrize("code", [128 + signal.SIGUSR1, 128 + signal.SIGTERM])
def test_the_job_is_queued_again_where_training_could_not_do_it(tmp_path: Path, code: int) -> None:
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\necho $* > {tmp_path}/called\n")
    (tmp_path / "scontrol").chmod(0o755)
    assert _sbatch(tmp_path, "seed=1", MORPH_IMAGE="morph.sif", FAKE_RESULT=str(code))[0].returncode == 0
    assert (tmp_path / "called").read_text() == "requeue 77\n"


def test_the_job_runs_in_the_image(tmp_path: Path) -> None:
    _, called = _sbatch(tmp_path, "seed=1", MORPH_IMAGE="my images/morph.sif")
    assert called[1:8] == [
        "apptainer", "exec", "--nv", "--writable-tmpfs", "my images/morph.sif", "python", "-m",
    ]  # fmt: skip


@pytest.mark.parametrize(("options", "variables"), [((), {}), (("seed=1",), {"SLURM_JOB_ID": ""})])
def test_the_script_outside_of_a_job_or_without_options_says_so(
    options: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    done, called = _sbatch(tmp_path, *options, **variables)
    assert (done.returncode, called) == (2, [])
    assert "sbatch docker/slurm.sbatch +experiment=pretrain_mix" in done.stderr


def test_its_readme_names_every_variable() -> None:
    readme = (DOCKER / "README.md").read_text()
    variables = re.findall(r"\$\{(\w+):-", (DOCKER / "compose.yaml").read_text())
    assert [name for name in variables if f"`{name}`" not in readme] == []
    assert [name for name in arguments(DOCKERFILE) if f"`{name}`" not in readme] == []


def test_the_commands_that_are_shown_compose(call: Any, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text() + (DOCKER / "README.md").read_text()
    text += (DOCKER / "slurm.sbatch").read_text().replace("\n#   ", "\n")
    seen = {"build": 0, "run": 0, "compose": 0, "sbatch": 0}
    for line in re.findall(r"^(?:\w+=.*)?(?:docker (?:build|run|compose)|sbatch) .*", text, re.MULTILINE):
        words = shlex.split(line, comments=True)
        given = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
        command = words[len(given) :]
        kind = "sbatch" if command[0] == "sbatch" else command[1]
        seen[kind] += 1
        if kind == "build":
            assert (ROOT / command[command.index("--file") + 1]).is_file()
            stated = [command[i + 1].split("=")[0] for i, word in enumerate(command) if word == "--build-arg"]
            assert set(stated) <= arguments(DOCKERFILE).keys()
        elif kind == "run":
            options = command[command.index("train") + 1 :]
            assert "max_epochs: 2" in _composed(call, tmp_path, options)
        elif kind == "compose":
            assert {"up", "stop"} & {*command}
            _composed(call, tmp_path, _compose(**given)["command"][1:])
        else:
            options = command[command.index("docker/slurm.sbatch") + 1 :]
            asked = dict(word.removeprefix("--").split("=") for word in command[1 : -len(options) - 1])
            assert asked.keys() <= _directives().keys()
            assert given.keys() <= {"MORPH_IMAGE"}
            _, called = _sbatch(tmp_path, *options, **given)
            assert "+experiment=pretrain_mix" in called
            _composed(call, tmp_path, called[called.index("morph.train") + 1 :])
    assert seen == {"build": 3, "run": 2, "compose": 4, "sbatch": 8}
