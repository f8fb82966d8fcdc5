"""`python -m morph.export`: a checkpoint as a folder of config.json and safetensors."""

from pathlib import Path

from omegaconf import DictConfig

from morph.checkpoint import find_checkpoint, read_checkpoint
from morph.command import command
from morph.model.folder import is_model_folder, write_folder


@command("export")
def main(config: DictConfig) -> None:
    """Read, merge, write, and say what there is now.

    Raises:
        ValueError: The folder holds an export already, or the checkpoint is none.
    """
    folder = Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, found the file {folder}")
    if is_model_folder(folder) and not config.overwrite:
        raise ValueError(
            f"out: {folder} already holds a model; choose another folder, or replace it with overwrite=true"
        )
    path = find_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(path, config.config)
    model = checkpoint.build(merge=True)
    files = write_folder(folder, model.stored, model.state_dict(), config.shard_size)
    count = sum(p.numel() for p in model.parameters())
    merged = ", its adapter merged into the weights" if checkpoint.adapter else ""
    print(f"{path}: {count / 1e6:.2f} M parameters{merged}")
    for file in files:
        print(f"  {file}  {file.stat().st_size / 1e3:,.1f} kB")
    print(f'Load it with Morph.from_pretrained("{folder}") or checkpoint={folder}')


if __name__ == "__main__":
    main()
