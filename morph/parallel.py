"""Training on several processes: how they come about, what each of them holds, and that they end together."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as distributed
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.optim import Optimizer

from morph.data.mixture import share
from morph.processes import PROCESS, Process, current, launched, lost_another
from morph.sharding import scattered, scattered_states, whole

__all__ = ["RUN_DIR", "Plan", "agreed", "plan", "strategy", "together"]

RUN_DIR = "MORPH_RUN_DIR"
"""Environment variable of the processes that a run starts: where it writes."""

_GRACE = 10.0  # seconds between the end of one process and the enforced end of another
_POLL = 0.2
_MASTER = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


class Plan(NamedTuple):
    """Which processes train, and what each of them does for an optimiser step.

    devices: Processes on each node.
    num_nodes: Nodes.
    batches_per_step: Batches of a step, of all processes.
    accumulate: Of these each process computes so many, one after the other.
    """

    devices: int | str | Sequence[int]
    num_nodes: int
    batches_per_step: int
    accumulate: int

    @property
    def processes(self) -> int:
        """On all nodes."""
        return self.batches_per_step // self.accumulate

    @property
    def options(self) -> dict[str, Any]:
        """Of the trainer."""
        return {"devices": self.devices, "num_nodes": self.num_nodes, "accumulate_grad_batches": self.accumulate}


def plan(trainer: Mapping[str, Any], batches_per_step: int | None, device: str, stated: Sequence[str] = ()) -> Plan:
    """What the options make of it, or the processes that torchrun or srun started.

    Args:
        trainer: devices, num_nodes and accumulate_grad_batches.
        batches_per_step: Of all processes; None: one for each process and each that the trainer accumulates.
        device: On which it runs, "cuda" or "cpu".
        stated: Options of the command line; accumulate_grad_batches among them was asked for, and not left at 1.

    Raises:
        ValueError: Options contradict each other or what was started, or the batches cannot be shared out evenly.
    """
    devices, num_nodes = trainer["devices"], trainer.get("num_nodes", 1)
    if started := launched():
        found = (_count(devices, device), num_nodes)
        if found not in ((1, 1), (started.devices, started.num_nodes)):
            raise ValueError(
                f"trainer.devices={devices}, trainer.num_nodes={num_nodes}: {started.by} started {started.devices} "
                f"processes on each of {started.num_nodes} nodes; leave these options out"
            )
        devices, num_nodes = started.devices, started.num_nodes
    processes = _count(devices, device) * num_nodes
    accumulate = trainer["accumulate_grad_batches"]
    if batches_per_step is None:
        return Plan(devices, num_nodes, processes * accumulate, accumulate)
    each = share(batches_per_step, processes)
    asked = any("accumulate_grad_batches" in option for option in stated)
    if (asked or accumulate != 1) and accumulate != each:
        raise ValueError(
            f"trainer.accumulate_grad_batches={accumulate} contradicts batches_per_step={batches_per_step}, of which "
            f"each of {processes} processes accumulates {each}; leave it out"
        )
    return Plan(devices, num_nodes, batches_per_step, each)


def _count(devices: int | str | Sequence[int], device: str) -> int:
    """Processes of a node that Lightning makes of its option `devices`."""
    if isinstance(devices, str):
        if devices in ("auto", "-1"):
            return torch.cuda.device_count() if device == "cuda" else 1
        return int(devices) if devices.isdecimal() else len([part for part in devices.split(",") if part])
    if isinstance(devices, int):
        return _count("auto", device) if devices == -1 else devices
    return len(devices)


@cache
def agreed(value: str) -> str:
    """A value that can differ between processes, such as the time of day: that of the first, for all."""
    process, started = current(), launched()
    if process is None or started is None:
        return value
    if started.by == "srun":  # nothing connects these processes before they train
        step = os.environ["SLURM_STEP_ID"]
        return str(Path(value).parent / f"slurm_{os.environ['SLURM_JOB_ID']}{'' if step == '0' else f'_{step}'}")
    store: Any = distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    key = f"morph/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    if process.rank == 0:
        store.set(key, value)
    return store.get(key).decode()


def strategy(wanted: str, processes: Plan, device: str, run_dir: Path) -> str | Strategy:
    """How several processes work together, by its name.

    Args:
        wanted: auto, ddp (each process holds all weights), fsdp (each holds its part) or another of Lightning's.
        processes: From `plan`.
        device: On which it runs, "cuda" or "cpu".
        run_dir: Where the processes that are started write.
    """
    if wanted == "fsdp":
        return Sharded(run_dir)
    several = _count(processes.devices, device) * processes.num_nodes > 1
    return Replicated(run_dir) if wanted == "ddp" or (wanted == "auto" and several) else wanted


class Replicated(DDPStrategy):
    """Every process holds the whole model.

    Weights that a batch does not use (time attention at T = 1, queries on an axis of length 1) have no gradient.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(find_unused_parameters=True)
        self.run_dir = run_dir

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes, self.run_dir)


class Sharded(ModelParallelStrategy):
    """Every process holds its part of each weight, see `morph.sharding`; checkpoints hold whole tensors, as those of
    any other run do, so that each can be resumed on any number of processes, sharded or not."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(save_distributed_checkpoint=False)
        self.run_dir = run_dir

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes, self.run_dir)

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return dict(whole(self.lightning_module.state_dict()))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return dict(whole(optimizer.state_dict()))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        mine = self.lightning_module.state_dict()
        parts = {
            name: scattered(value, mine[name]) if name in mine else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(parts, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, states in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            optimizer.load_state_dict(scattered_states(states, parameters))


class Launcher(_SubprocessScriptLauncher):
    """Starts `python -m morph.train` once more for each further device of this node, with the options of this job.

    Lightning's own would hand on the whole command line, with which each process of a multirun would start all jobs
    again, and would leave the place of its processes in the environment, where the next job would take it for its own.
    """

    def __init__(self, environment: Any, num_processes: int, num_nodes: int, run_dir: Path) -> None:
        super().__init__(environment, num_processes, num_nodes)
        self.run_dir = run_dir

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally and not self.procs:
            self._start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def _start(self) -> None:
        place = self.cluster_environment
        count, first = self.num_processes * self.num_nodes, place.node_rank() * self.num_processes
        if count == 1:
            return
        folder = Path(tempfile.mkdtemp(prefix="morph-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        shared = {
            "MASTER_ADDR": place.main_address,
            "MASTER_PORT": str(place.main_port),
            "NODE_RANK": str(place.node_rank()),
            "WORLD_SIZE": str(count),
            RUN_DIR: str(self.run_dir),
        }
        for local_rank in range(1, self.num_processes):
            own = {"LOCAL_RANK": str(local_rank), PROCESS: f"{first + local_rank}:{count}:{folder}"}
            self.procs.append(subprocess.Popen(_command(), env={**os.environ, **shared, **own}))
        os.environ[PROCESS] = f"{first}:{count}:{folder}"


def _command() -> list[str]:
    hydra = HydraConfig.get()
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    own = [option for option in hydra.overrides.hydra if not option.startswith("hydra.mode=")]
    folders = [part for path in sources for part in ("--config-dir", path)]
    return [sys.executable, "-m", "morph.train", *folders, *hydra.overrides.task, *own]


@contextmanager
def together(trainer: Trainer, model: torch.nn.Module) -> Iterator[None]:
    """The processes of a run end together: where one dies, the others do within seconds, and one says why.

    A process notices the end of another by the error of its connection, and ends with exit code 1; one that waits
    where it cannot notice (for a GPU) is ended after a grace.

    Raises:
        ValueError: The run has what sharded weights do not allow.
    """
    _check(trainer, model)
    before = {name: os.environ.get(name) for name in (*_MASTER, PROCESS)}
    over = threading.Event()
    parent = os.getppid() if current() else None
    threading.Thread(target=_watch, args=(trainer, over, parent), daemon=True).start()
    try:
        yield
    except Exception as error:
        process, children = current(), _children(trainer)
        if process is None:
            raise
        if lost_another(error) and os.environ.get("MORPH_TRACEBACK", "0") == "0":
            _leave(process, children, parent)
        process.claim()
        _end(children)
        raise
    finally:
        over.set()
    if children := _children(trainer):
        for child in children:
            child.wait()
        distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _watch(trainer: Trainer, over: threading.Event, parent: int | None) -> None:
    """Ends this process some time after another one ended, unless it does so by itself."""
    while not over.wait(_POLL):
        process, children = current(), _children(trainer)
        if process is None:
            continue
        if process.first in (None, process.rank) and _ended(process, children, parent) is None:
            continue
        if over.wait(_GRACE):
            return
        _leave(process, children, parent)


def _leave(process: Process, children: Sequence[subprocess.Popen[bytes]], parent: int | None) -> NoReturn:
    """End at once: what is left of a group with a dead member can hang or abort when it is taken down."""
    verdict = process.verdict(partial(_ended, process, children, parent))
    if verdict is not None:
        print(verdict, file=sys.stderr, flush=True)
    _end(children)
    if children:
        shutil.rmtree(process.folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(1)


def _ended(process: Process, children: Sequence[subprocess.Popen[bytes]], parent: int | None) -> str | None:
    """What this process knows of the end of another one."""
    for number, child in enumerate(children, start=process.rank + 1):
        code = child.poll()
        if code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return f"process {number} of {process.size} {how} and left no message"
    if parent is not None and os.getppid() != parent:
        first = process.rank - int(os.environ["LOCAL_RANK"]) if PROCESS in os.environ else None
        starter = f"what started {process}" if first is None else f"process {first} of {process.size}"
        return f"{starter} ended and left no message"
    return None


def _children(trainer: Trainer) -> list[subprocess.Popen[bytes]]:
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, Launcher) else []


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
    for child in children:
        child.wait()


def _check(trainer: Trainer, model: torch.nn.Module) -> None:
    """Refuse what does not go with sharded weights, before any process is started."""
    if not isinstance(trainer.strategy, Sharded):
        return
    remedy = "which trainer.strategy=fsdp does not allow; leave it out, or take trainer.strategy=ddp"
    if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ValueError(f"callbacks: an average of the weights needs all of them in one process, {remedy}")
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise ValueError(f"execution.compile takes weights as they are when it compiles, {remedy}")
