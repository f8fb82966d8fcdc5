"""A Dockerfile without an engine: its stages, what .dockerignore lets through, and its steps run in folders."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import NamedTuple

__all__ = ["Image", "Step", "arguments", "build", "context", "read_stages", "read_steps"]

_OF_THE_IMAGE = re.compile(r"(?<![\w.:/\-])/(?=(?:opt|src|wheels|work|cache)\b)")


class Step(NamedTuple):
    """One instruction, its continued lines joined."""

    name: str
    text: str


class Image(NamedTuple):
    """What the last stage leaves."""

    root: Path
    environment: dict[str, str]
    workdir: Path
    entrypoint: list[str]
    user: str
    skipped: list[str]


def read_steps(text: str) -> list[Step]:
    """Instructions without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", "")
    return [Step(*line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


def read_stages(text: str) -> dict[str, list[Step]]:
    """Instructions by the name of their stage; what stands before the first is under "", and an unnamed stage
    under "final"."""
    stages: dict[str, list[Step]] = {"": []}
    for step in read_steps(text):
        if step.name == "FROM":
            words = step.text.split()
            stages[words[2] if len(words) > 1 and words[1] == "AS" else "final"] = []
        else:
            next(reversed(stages.values())).append(step)
    return stages


def arguments(text: str) -> dict[str, str]:
    """Build arguments and their defaults."""
    pairs = [shlex.split(step.text)[0].partition("=") for step in read_steps(text) if step.name == "ARG"]
    return {name: default for name, _, default in pairs}


def context(folder: Path, tracked: list[str]) -> list[str]:
    """Of the files of a folder, those that .dockerignore lets through: the last pattern that fits a file or a folder
    above it decides (https://docs.docker.com/build/concepts/context/#dockerignore-files)."""
    lines = [line.strip() for line in (folder / ".dockerignore").read_text().splitlines()]
    patterns = [(not line.startswith("!"), _regex(line.lstrip("!"))) for line in lines if line and line[0] != "#"]
    kept = []
    for name in tracked:
        above = [name, *map(str, list(Path(name).parents)[:-1])]
        fits = [ignored for ignored, pattern in patterns if any(pattern.fullmatch(path) for path in above)]
        if not fits or not fits[-1]:
            kept.append(name)
    return kept


def build(
    dockerfile: Path,
    files: Path,
    root: Path,
    values: Mapping[str, str],
    run: Callable[[str, Path, dict[str, str]], None],
) -> Image:
    """Run the steps of a Dockerfile, each stage in a folder in place of /.

    Args:
        dockerfile: Its path.
        files: What COPY copies from: the context without what .dockerignore keeps out.
        root: An empty folder for the stages.
        values: Build arguments other than their defaults.
        run: Runs a RUN step: its command, its working folder and its environment.

    What belongs to the system (apt-get, useradd) is left out, and its first words are listed.  The Python of the base
    image is a new virtual environment of the Python that runs this.

    Raises:
        ValueError: An instruction is not known here.
    """
    base = root / "base"
    subprocess.run([sys.executable, "-m", "venv", str(base)], check=True, capture_output=True)
    skipped: list[str] = []
    image = Image(root, {}, root, [], "", skipped)
    for name, steps in read_stages(dockerfile.read_text()).items():
        stage = root / name
        image = Image(stage, {"PATH": f"{base}/bin:/usr/bin:/bin"}, stage, [], "root", skipped)
        defined: dict[str, str] = {}
        for step in steps:
            words = shlex.split(step.text)
            if step.name == "ARG":
                key, _, default = words[0].partition("=")
                defined[key] = values.get(key, default)
            elif step.name == "ENV":
                for word in words:
                    key, _, value = word.partition("=")
                    image.environment[key] = _here(value, stage).replace("$PATH", image.environment["PATH"])
            elif step.name == "WORKDIR":
                image = image._replace(workdir=Path(_here(words[0], stage)))
                image.workdir.mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                _copy(words, root, files, image)
            elif step.name == "USER":
                image = image._replace(user=Template(step.text).substitute(defined))
            elif step.name == "ENTRYPOINT":
                image = image._replace(entrypoint=json.loads(step.text))
            elif step.name == "RUN":
                _run(step.text, root, image, defined, run)
            elif step.name not in ("VOLUME", "CMD"):
                raise ValueError(f"{dockerfile}: {step.name} is not known here; add what it does")
    return image


def _here(text: str, stage: Path) -> str:
    """The image's own absolute paths, below the stage's folder."""
    return _OF_THE_IMAGE.sub(f"{stage}/", text)


def _run(
    text: str, root: Path, image: Image, defined: Mapping[str, str], run: Callable[[str, Path, dict[str, str]], None]
) -> None:
    command = re.sub(r"--mount=\S+\s+", "", text)
    if command.startswith(("apt-get ", "useradd ")):
        image.skipped.append(command.split()[0])
        return
    mounts = [dict(part.split("=", 1) for part in found.split(",")) for found in re.findall(r"--mount=(\S+)", text)]
    bound = [mount for mount in mounts if mount["type"] == "bind"]
    for mount in bound:
        Path(_here(mount["target"], image.root)).symlink_to(_here(mount["source"], root / mount["from"]))
    run(_here(command, image.root), image.workdir, image.environment | dict(defined))
    for mount in bound:
        Path(_here(mount["target"], image.root)).unlink()


def _copy(words: list[str], root: Path, files: Path, image: Image) -> None:
    source = files
    if words[0].startswith("--from="):
        source = root / words.pop(0).removeprefix("--from=")
    *sources, target = words
    to = image.workdir / _here(target, image.root)
    for word in sources:
        path = source / word.lstrip("/")
        if path.is_dir() and source != files:
            # A link: an environment is a gigabyte, and nothing uses that of the other stage afterwards.
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, to, dirs_exist_ok=True)
        else:
            into = to / path.name if target.endswith("/") or len(sources) > 1 else to
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, into)


def _regex(pattern: str) -> re.Pattern[str]:
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern.strip("/"))
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))
