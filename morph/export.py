"""`python -m morph.export`: a checkpoint as a folder of config.json and safetensors, or as an adapter's folder."""

from pathlib import Path

from omegaconf import DictConfig

from morph.checkpoint import Checkpoint, find_checkpoint, keep_adapter, read_checkpoint
from morph.command import command, defaults
from morph.model.adapter_folder import is_adapter_folder
from morph.model.folder import is_model_folder, write_folder
from morph.model.morph import Morph


@command("export")
def main(config: DictConfig) -> None:
    """Read, merge, write, and say what there is now.

    Raises:
        ValueError: The folder holds an export already, or the checkpoint is none.
    """
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, found the file {folder}")
    if (is_model_folder(folder) or is_adapter_folder(folder)) and not config.overwrite:
        raise ValueError(
            f"out: {folder} already holds a model; choose another folder, or replace it with overwrite=true"
        )
    path = find_checkpoint(config.checkpoint)
    # An adapter's folder needs its base to be read, the checkpoint of a run to be told from it.
    needed = config.merge or is_adapter_folder(path)
    checkpoint = read_checkpoint(path, config.config, config.base if needed else None, config.weights)
    if not config.merge:
        _write_adapter(folder, path, checkpoint, config)
        return
    model = checkpoint.build(merge=True)
    files = write_folder(folder, model.stored, model.state_dict(), config.shard_size)
    count = sum(p.numel() for p in model.parameters())
    merged = ", its adapter merged into the weights" if checkpoint.adapter else ""
    print(f"{path}: {count / 1e6:.2f} M parameters{merged}")
    for file in files:
        print(f"  {file}  {file.stat().st_size / 1e3:,.1f} kB")
    call = "Morph.from_pretrained" if isinstance(model, Morph) else "load_checkpoint"
    print(f'Load it with {call}("{folder}") or checkpoint={folder}')


def _write_adapter(folder: Path, path: Path, checkpoint: Checkpoint, config: DictConfig) -> None:
    if not checkpoint.base:
        raise ValueError(
            f"merge=false keeps what fine-tuning added to a model, and {path} was not fine-tuned; leave it out"
        )
    if config.shard_size != defaults("export").shard_size:
        raise ValueError("shard_size has no effect with merge=false, which writes small files; leave it out")
    files = keep_adapter(folder, checkpoint, config.base and Path(config.base))
    print(f"{path}: what it adds to {checkpoint.base['path']}")
    for file in files:
        print(f"  {file}  {file.stat().st_size / 1e3:,.1f} kB")
    print(f'Load it with load_checkpoint("{folder}", base=...) or checkpoint={folder}')


if __name__ == "__main__":
    main()
