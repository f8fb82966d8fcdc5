"""`python -m morph.train`: train a model on a mixture of data sets, from scratch or from a checkpoint."""

import time
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from morph.checkpoint_files import CheckpointFile
from morph.command import command, given
from morph.execution import device, dtype, precision, set_execution
from morph.forecaster import Forecaster
from morph.interruption import cluster
from morph.objective import Objective
from morph.parallel import plan, strategy, together
from morph.progress import quiet_warnings
from morph.resume import check_resume, recipe, resume_point
from morph.run_folder import RunRecord, check_job, claimed, folder_of, leave, score_only
from morph.start import open_data, starting_checkpoint, starting_model

OmegaConf.register_new_resolver("run_folder", folder_of, replace=True)


@command("train")
def main(config: DictConfig) -> None:
    """Build from the configuration, fit, and say where the result is."""
    quiet_warnings()
    check_job(config)
    where = device("cpu" if config.trainer.accelerator == "cpu" else "auto")
    computed_in = precision(config.trainer.precision, where)
    processes = plan(config.trainer, config.batches_per_step, where, given("trainer"))
    seed_everything(config.seed, verbose=False)
    run_dir, since = Path(config.run_dir), time.time()
    resume = resume_point(config.resume, run_dir, config.overwrite)
    checkpoint = starting_checkpoint(config)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if checkpoint and config.window.context is None:
        plain["window"]["context"] = checkpoint.trained_on.context
    data = open_data(plain, processes.batches_per_step)
    start = starting_model(config, checkpoint, data)
    forecaster = Forecaster(
        start.model,
        instantiate(config.optimizer),
        instantiate(config.schedule),
        weight_decay=config.weight_decay,
        seed=config.seed,
        finetune=start.finetune,
        base=start.base,
        recipe=recipe(plain, computed_in),
        objective=Objective(**plain["objective"]),
    )
    if config.checkpoint is not None:
        plain["checkpoint"] = str(Path(config.checkpoint).absolute())
        plain["model"] = forecaster.model.config
    if resume:
        check_resume(resume, forecaster, data)
    set_execution(forecaster.model, **plain["execution"], device=where, dtype=dtype(computed_in))
    forecaster.check(data)
    with claimed(run_dir, config.overwrite, resume, start.needs, since):
        callbacks = instantiate({k: v for k, v in plain["callbacks"].items() if k != "ema" or config.ema is not None})
        record = RunRecord(run_dir, DictConfig({**plain, "datasets": data.datasets}), resume)
        trainer = instantiate(
            config.trainer,
            precision=computed_in,
            **processes.options,
            strategy=strategy(config.trainer.strategy, processes, where, run_dir),
            logger=instantiate(config.logger),
            callbacks=[*callbacks.values(), record],
            plugins=[CheckpointFile(), *cluster(processes.processes)],
        )
        with together(trainer, forecaster):
            if any(parameter.requires_grad for parameter in forecaster.parameters()):
                trainer.fit(forecaster, data, ckpt_path=resume, weights_only=True)
            else:
                score_only(trainer, forecaster, data, run_dir, resume)
        leave(run_dir, config.checkpoint if start.base and "all" not in forecaster.parts else None, config.base)


if __name__ == "__main__":
    main()
