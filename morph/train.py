"""`python -m morph.train`: pretrain a model on a mixture of data sets."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from morph.checkpoint import find_checkpoint
from morph.command import command
from morph.data.catalogue import find_datasets
from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster
from morph.progress import quiet_warnings
from morph.run_folder import RunRecord, check_resume, claim, folder_of

OmegaConf.register_new_resolver("run_folder", folder_of, replace=True)


@command("train")
def main(config: DictConfig) -> None:
    """Build from the configuration, fit, and say where the result is."""
    quiet_warnings()
    seed_everything(config.seed, verbose=False)
    run_dir = Path(config.run_dir)
    resume = find_checkpoint(config.resume, prefer="last") if config.resume else None
    options = {
        "data_dir": str(Path(config.data_dir).absolute()),
        "level": config.level,
        "suite_seed": config.suite_seed,
    }
    datasets = find_datasets(config.data, options)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    data = MixtureDataModule(
        datasets,
        batch_size=plain["batch_size"],
        seed=config.seed,
        options=options,
        **plain["window"],
        **plain["loader"],
        **plain["mixture"],
    )
    forecaster = Forecaster(
        instantiate(config.model),
        instantiate(config.optimizer),
        instantiate(config.schedule),
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    if resume:
        check_resume(resume, forecaster.model, data)
    claim(run_dir, config.overwrite, resume)
    callbacks = instantiate(
        {k: v for k, v in plain["callbacks"].items() if k != "in_between" or config.checkpoint_every}
    )
    trainer = instantiate(
        config.trainer,
        precision=_precision(config.trainer.precision),
        strategy=_strategy(config.trainer.strategy, config.trainer.devices),
        logger=instantiate(config.logger),
        callbacks=[*callbacks.values(), RunRecord(run_dir, DictConfig({**plain, "datasets": datasets}), resume)],
    )
    trainer.fit(forecaster, data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted or trainer.received_sigterm:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        print(f"Checkpoints in {run_dir / 'checkpoints'}.  Judge them:  python -m morph.evaluate checkpoint={run_dir}")


def _precision(wanted: str) -> str:
    """ "auto" is bfloat16 where the hardware has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _strategy(wanted: str, devices: int | str) -> str:
    """Weights that a batch does not use (time attention at T = 1, queries on an axis of length 1) have no gradient."""
    return "ddp_find_unused_parameters_true" if wanted in ("auto", "ddp") and devices not in (1, "1") else wanted


if __name__ == "__main__":
    main()
