"""The processes of a run: which of them this one is, and which of them says why the run ended."""

import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["PROCESS", "Launched", "Process", "current", "launched", "lost_another"]

PROCESS = "MORPH_PROCESS"
"""Environment variable of a process that another one started: its rank, their number, and a folder of theirs."""

_STARTED = time.time()
_OLDER = 60.0  # seconds between the starts of processes of one run, at most
_REPORT = 3.0  # seconds that another process has for its own words
_OF_CONNECTIONS = re.compile(
    r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|tcpstore|socket|process ?group", re.IGNORECASE
)
_INTERACTIVE = ("bash", "interactive")


class Launched(NamedTuple):
    """How many processes torchrun or srun started.

    by: Who started them.
    devices: On each node.
    num_nodes: Nodes.
    """

    by: str
    devices: int
    num_nodes: int


class Process(NamedTuple):
    """One of several processes of a run.

    rank: Its number, from 0.
    size: Their number.
    folder: Where those of one node leave word for each other; it need not exist.
    """

    rank: int
    size: int
    folder: Path

    def __str__(self) -> str:
        return f"process {self.rank} of {self.size}"

    def claim(self) -> bool:
        """Whether it is this process that says why the run ends: the first that asks, and again whenever it asks."""
        if (first := self.first) is not None:
            return first == self.rank
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._stale:
                self._word.unlink(missing_ok=True)
            # With its content at once: whoever finds the name reads the rank.
            mine = self.folder / f"first.{self.rank}"
            mine.write_text(str(self.rank))
            os.link(mine, self._word)
        except FileExistsError:
            return self.first == self.rank
        except OSError:  # a full disk or somebody else's folder: twice is better than never
            return True
        return True

    @property
    def first(self) -> int | None:
        """The process that said why the run ends; None while none has."""
        try:
            if self._stale or self.folder.stat().st_uid != os.getuid():  # others can make folders of that name, too
                return None
            return int(self._word.read_text())
        except (OSError, ValueError):
            return None

    @property
    def _stale(self) -> bool:
        """Of an earlier run, whose numbers were the same."""
        return self._word.exists() and self._word.stat().st_mtime < _STARTED - _OLDER

    def verdict(self, known: Callable[[], str | None]) -> str | None:
        """What a process says that lost another one: nothing where another has said something.

        Args:
            known: What it knows of the other's end by now.
        """
        until = time.monotonic() + _REPORT
        while (words := known()) is None and self.first is None and time.monotonic() < until:
            time.sleep(0.05)
        if not self.claim():
            return None
        return f"error: {words or f'{self} lost its connection to another one, which left no message'}; {_REMEDY}"

    @property
    def _word(self) -> Path:
        return self.folder / "first"


_REMEDY = (
    "the others were ended with it.  What is killed from outside has often run out of memory; resume=auto goes on "
    "from the last checkpoint"
)


def launched() -> Launched | None:
    """What torchrun or srun started this process with, None where neither did.

    Raises:
        ValueError: SLURM has several tasks and this is none of them, or it does not say how many each node has.
    """
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        return Launched("torchrun", int(env["LOCAL_WORLD_SIZE"]), int(env["GROUP_WORLD_SIZE"]))
    tasks = int(env.get("SLURM_NTASKS", 1))
    if PROCESS in env or env.get("SLURM_JOB_NAME") in _INTERACTIVE or tasks == 1:
        return None
    if "SLURM_STEP_ID" not in env:
        raise ValueError(f"SLURM has {tasks} tasks, and this process is none of them; put srun before its command")
    num_nodes = int(env.get("SLURM_NNODES", 1))
    if "SLURM_NTASKS_PER_NODE" not in env:
        raise ValueError(f"srun: give --ntasks-per-node={-(-tasks // num_nodes)} instead of --ntasks={tasks}")
    return Launched("srun", int(env["SLURM_NTASKS_PER_NODE"]), num_nodes)


def current() -> Process | None:
    """This process, if it is one of several that were started together."""
    env = os.environ
    if PROCESS in env:
        rank, size, folder = env[PROCESS].split(":", 2)
        return Process(int(rank), int(size), Path(folder))
    mine = f"morph-{os.getuid() if hasattr(os, 'getuid') else 0}"
    if "TORCHELASTIC_RUN_ID" in env:
        run = f"{env['TORCHELASTIC_RUN_ID']}-{os.getppid()}-{env.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        found = Process(int(env["RANK"]), int(env["WORLD_SIZE"]), _folder(f"{mine}-{run}"))
    elif "SLURM_STEP_ID" in env and env.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        run = f"{env['SLURM_JOB_ID']}-{env['SLURM_STEP_ID']}-{env.get('SLURM_RESTART_COUNT', 0)}"
        found = Process(int(env["SLURM_PROCID"]), int(env.get("SLURM_NTASKS", 1)), _folder(f"{mine}-slurm-{run}"))
    else:
        return None
    return found if found.size > 1 else None


def lost_another(error: BaseException) -> bool:
    """Whether an error says that the connection to another process broke, rather than what broke it."""
    return isinstance(error, RuntimeError) and _OF_CONNECTIONS.search(str(error)) is not None


def _folder(name: str) -> Path:
    return Path(tempfile.gettempdir(), re.sub(r"[^\w.-]", "_", name))
