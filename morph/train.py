"""`python -m morph.train`: pretrain a model on a mixture of data sets."""

from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from morph.checkpoint import find_checkpoint, read_checkpoint, run_of
from morph.command import command
from morph.data.catalogue import find_datasets
from morph.data.module import MixtureDataModule
from morph.forecaster import Forecaster
from morph.model.morph import Morph
from morph.progress import announce, quiet_warnings
from morph.provenance import record

OmegaConf.register_new_resolver("run_of", lambda resume, new: str(run_of(resume)) if resume else new)


@command("train")
def main(config: DictConfig) -> None:
    """Build from the configuration, fit, and say where the result is."""
    quiet_warnings()
    seed_everything(config.seed, verbose=False)
    options = {key: config[key] for key in ("data_dir", "level", "suite_seed")}
    datasets = find_datasets(config.data, options)
    resume = find_checkpoint(config.resume, prefer="last") if config.resume else None
    data = MixtureDataModule(
        datasets,
        batch_size=instantiate(config.batch_size, _convert_="all"),
        seed=config.seed,
        options=options,
        **instantiate(config.window),
        **instantiate(config.loader, _convert_="all"),
        **instantiate(config.mixture, _convert_="all"),
    )
    forecaster = Forecaster(
        instantiate(config.model),
        instantiate(config.optimizer),
        instantiate(config.schedule),
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    if resume:
        _check_architecture(resume, forecaster.model)
    run_dir = Path(config.run_dir)
    if not (config.overwrite or config.resume) and (run_dir / "checkpoints").exists():
        raise ValueError(
            f"run_dir: {run_dir} already holds a run; continue it with resume={run_dir}, choose another run_dir, "
            "or replace it with overwrite=true"
        )
    record(run_dir, config, "train")
    trainer = instantiate(
        config.trainer,
        precision=_precision(config.trainer.precision),
        logger=instantiate(config.logger),
        callbacks=list(instantiate(config.callbacks).values()),
    )
    announce(forecaster.model, datasets, run_dir, resume)
    trainer.fit(forecaster, data, ckpt_path=resume, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        print(f"Checkpoints in {run_dir / 'checkpoints'}.  Judge them:  python -m morph.evaluate checkpoint={run_dir}")


def _check_architecture(resume: Path, model: Morph) -> None:
    stored = read_checkpoint(resume).config
    different = [
        f"{key}={stored.get(key)} (now {value})" for key, value in model.config.items() if stored.get(key) != value
    ]
    if different:
        raise ValueError(
            f"resume: the model of {resume} was built with other options: {', '.join(different)}; "
            "resume with the options of that run, which are in its train.yaml and train.json"
        )


def _precision(wanted: str) -> str:
    """ "auto" is bfloat16 where the hardware has it, else float32."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


if __name__ == "__main__":
    main()
