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

__all__ = ["check_resume", "resume_point"]


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
    if "batches_per_step" not in stored.plan:  # of a run from before it was known
        now.pop("batches_per_step")
    # What the run was fine-tuned with and the options do not name is different as well.
    unsaid = {key: None for key in stored.plan if key.startswith("finetune.") and key not in now}
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
    return [f"{prefix}{key}={stored.get(key)}, now {value}" for key, value in now.items() if stored.get(key) != value]
