"""Going on with a run: from which of its checkpoints, and whether it is the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morph.checkpoint import find_checkpoint, read_checkpoint, run_of
from morph.checkpoint_files import damage, newest_good
from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster
from morph.model.folder import read_json
from morph.terminal import printable

__all__ = ["check_resume", "recipe", "resume_point"]

_OPEN = ("finetune.", "optimizer.", "schedule.")
_LATER = ("batches_per_step", "data sets", "ema", "objective", "optimizer", "schedule", "weight_decay", "trainer.")


def resume_point(resume: str | None, run_dir: Path, overwrite: bool) -> Path | None:
    """The checkpoint that a run goes on from, None for a new run.

    Args:
        resume: "auto": the newest good checkpoint in `run_dir`, if there is any; the folder of a run: that of this run;
            a file: this one.
        run_dir: Where the run writes.
        overwrite: Replace the run that is there.

    Raises:
        ValueError: There is none, it is damaged, or it is to be replaced as well.
    """
    if resume is None:
        return None
    if overwrite:
        raise ValueError(f"resume={resume} continues a run, overwrite=true replaces it: leave one of them out")
    if resume == "auto":
        return newest_good(run_dir)
    if Path(resume).is_dir() and (found := newest_good(Path(resume))):
        return found
    path = find_checkpoint(resume, prefer="last")
    if path.is_file() and (fault := damage(path)):
        raise ValueError(f"resume: {path}: {fault}; resume=auto takes the newest checkpoint that is not damaged")
    return path


def recipe(options: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Of a run's options those that decide its numbers beside its model and data.  How long it trains is none of them:
    more epochs go on with it, at the rates that the schedule then has.

    Args:
        options: Of morph.train.
        precision: In which it is computed.
    """
    clip = {key: value for key, value in options["trainer"].items() if key.startswith("gradient_clip")}
    kept = {key: options[key] for key in ("ema", "objective", "optimizer", "schedule", "weight_decay")}
    return {**kept, "trainer": {**clip, "precision": precision}}


def check_resume(resume: Path, forecaster: Forecaster, data: MixtureDataModule) -> None:
    """A resumed run must be the same run.

    Raises:
        ValueError: An option that decides the architecture, what is trained or the order of the batches differs, or
            it is no run's.
    """
    stored = read_checkpoint(resume)
    if not stored.plan:
        raise ValueError(f"resume: {resume} is an exported or published model, which has no run to continue")
    different = _differences(stored.config, forecaster.model.config, "model.")
    now = data.plan | forecaster.trained
    # What a run from before an option was stored does not say is not compared.
    unknown = tuple(group for group in _LATER if not any(key.startswith(group) for key in stored.plan))
    now = {key: value for key, value in now.items() if not key.startswith(unknown)}
    # What the run was given and the options do not name is different as well.
    unsaid = {key: None for key in stored.plan if key.startswith(_OPEN) and key not in now}
    different += _differences(stored.plan, now | unsaid, "")
    different += _differences({"sha256": stored.base.get("sha256")}, {"sha256": forecaster.base.get("sha256")}, "base ")
    if different:
        raise ValueError(
            f"resume: {resume} belongs to a run with other options: {'; '.join(different)}.  Give the options of that "
            f"run, which are in {run_of(resume)}/train.yaml{_command(run_of(resume))}"
        )


def _command(run_dir: Path) -> str:
    """With which it was started, if that is known."""
    try:
        command = read_json(run_dir / "train.json").get("command")
    except (ValueError, OSError):  # another refusal is being told
        return ""
    return f"; it was started by: {printable(command)}" if isinstance(command, str) else ""


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[str]:
    different = [key for key, value in now.items() if stored.get(key) != value]
    return [_difference(prefix + key, stored.get(key), now[key]) for key in different]


def _difference(key: str, stored: Any, now: Any) -> str:
    if key != "data sets":
        return f"{key}={stored}, now {now}"
    changed = [name for name in now if stored.get(name) != now[name]]
    return f"{', '.join(changed)} held other data (level, suite_seed, data_dir or the files are not the same)"
