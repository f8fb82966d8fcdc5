"""`python -m morph.benchmark`: speed and memory of the model, against the plain arithmetic and against the machine."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from hydra import compose
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn

from morph.command import command
from morph.cost import Work, count_operations, least_times, matrix_product, peak_memory, products
from morph.execution import check_attention, set_execution
from morph.execution import device as choose_device
from morph.execution import dtype as dtype_of
from morph.model.morph import Morph
from morph.model.reference import published_options, read_reference
from morph.progress import quiet_warnings
from morph.provenance import origin, write_whole
from morph.tables import speed_header, speed_line

_SETTINGS = ("precision", "attention", "compile", "activation_checkpointing")
_PRECISIONS = ("32-true", "bf16-mixed", "64-true")
_LARGEST_DIFFERENCE = 1e-3  # of the largest value; far above rounding in float32, far below another computation


@command("benchmark")
def main(config: DictConfig) -> None:
    """Measure every size, shape and setting, and print a line for each as it comes.

    Raises:
        ValueError: An option is unknown or impossible.
        RuntimeError: The baseline computes something else.
    """
    quiet_warnings()
    options: Any = OmegaConf.to_container(config, resolve=True)
    device, console = choose_device(options["device"]), Console(soft_wrap=True)
    settings, shapes = _settings(options), _shapes(options)
    if config.repeats < 1:
        raise ValueError(f"repeats: expected at least 1, found {config.repeats}")
    if config.json and not Path(config.json).absolute().parent.is_dir():
        raise ValueError(f"json: there is no folder {Path(config.json).parent}")
    models = {size: _model(size) for size in _listed(options["sizes"])}
    baseline = _baseline(options["baseline"], console)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    console.print(f"{where}, torch {torch.__version__}, seed {config.seed}\n\n{speed_header()}", highlight=False)
    rows = []
    for size, build in models.items():
        for name, shape in shapes.items():
            torch.manual_seed(config.seed)
            with console.status(f"{size}, {name}"):
                for row in _measure(build(shape[1]), shape, settings, baseline, device, config.repeats):
                    rows.append({"size": size, "shape": name, "dimensions": shape, **row})
                    console.print(speed_line(rows[-1]), highlight=False)
                    if config.json:
                        numbers = {**origin(), "device": device, "seed": config.seed, "rows": rows}
                        write_whole(Path(config.json), json.dumps(numbers, indent=2) + "\n")
    if config.json:
        console.print(f"\nNumbers in {config.json}")


def _settings(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    base = {name: options[name] for name in _SETTINGS}
    chosen = {"": {}, **_chosen(options, "also", "setting")}
    for name, setting in chosen.items():
        if unknown := set(setting) - set(_SETTINGS):
            raise ValueError(f"setting.{name}: expected some of {', '.join(_SETTINGS)}, found {', '.join(unknown)}")
    settings = {name: base | setting for name, setting in chosen.items()}
    for setting in settings.values():
        if setting["precision"] not in _PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, found {setting['precision']!r}")
        check_attention(setting["attention"])
    return settings


def _shapes(options: Mapping[str, Any]) -> dict[str, list[int]]:
    shapes = _chosen(options, "shapes", "shape")
    for name, shape in shapes.items():
        if len(shape) != 7 or not all(isinstance(length, int) and length > 0 for length in shape):
            raise ValueError(f"shape.{name}: expected seven lengths, [B, T, F, C, D, H, W], found {shape}")
    return shapes


def _chosen(options: Mapping[str, Any], wanted: str, known: str) -> dict[str, Any]:
    names = _listed(options[wanted])
    for name in names:
        if name not in options[known]:
            raise ValueError(f"{wanted}: expected some of {', '.join(options[known])}, found {name!r}")
    return {name: options[known][name] for name in names}


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _model(size: str) -> Callable[[int], Morph]:
    """Builds a size for a number of frames, so that it computes what the published arithmetic does."""
    try:
        config = compose(f"model/{size}").model
    except HydraException as error:
        raise ValueError(f"sizes: conf/model has no {size!r}") from error
    overrides = {
        "normalisation": "none",
        "predict": "frame",
        "base": "persistence",
        "local": None,
        "token_frames": None,
    }
    return lambda context: instantiate(
        OmegaConf.merge(config, overrides, {"capacity": {"max_context": context}}), _convert_="object"
    )


def _baseline(name: str | None, console: Console) -> Callable[..., nn.Module] | None:
    if name is None:
        return None
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        console.print(f"No ratios: there is no {name} here; run it from the project's folder, or set baseline=null")
        return None


def _measure(
    model: Morph,
    shape: Sequence[int],
    settings: Mapping[str, Mapping[str, Any]],
    baseline: Callable[..., nn.Module] | None,
    device: str,
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """A row for each setting; its step takes turns with a large matrix product and, once, the plain model's."""
    batch, _, *state = shape
    x, y = torch.randn(*shape, device=device), torch.randn(batch, *state, device=device)
    model = model.to(device)
    parameters = sum(p.numel() for p in model.parameters())
    plain, difference, plain_s, plain_memory = None, None, None, None
    if baseline is not None:
        if any(length > 1 and length % model.patch_size for length in shape[4:]):
            raise ValueError(
                f"shape: the plain model takes multiples of {model.patch_size} along D, H and W, found {shape[4:]}; "
                "set baseline=null"
            )
        options = published_options(model.config)
        plain = baseline(**options, dropout=model.config["dropout"])
        model.restore(read_reference(plain.state_dict(), options).weights)
        plain.to(device).eval()
        with torch.no_grad():
            expected = plain(x)
            difference = ((model(x) - expected).abs().max() / expected.abs().max()).item()
        if difference > _LARGEST_DIFFERENCE:
            raise RuntimeError(f"the model and the plain model differ by {difference:.1e} of the largest value")
    forward_operations = count_operations(_forward(model, x, "32-true"))
    step_operations = count_operations(_step(model, x, y, "32-true"))
    for number, (name, setting) in enumerate(settings.items(), start=1):
        precision = setting["precision"]
        timed = copy.deepcopy(model) if number < len(settings) else model
        timed, at = (timed.double(), x.double()) if precision == "64-true" else (timed, x)
        chosen = {key: value for key, value in setting.items() if key != "precision"}
        set_execution(timed, **chosen, device=device, dtype=dtype_of(precision))
        step, forward = _step(timed, at, y, precision), _forward(timed, at, precision)
        product, product_operations = matrix_product(device, dtype_of(precision))
        works = [step, product]
        if plain is not None:
            works.append(_step(plain.to(at.dtype), at, y, precision))
        step_s, product_s, *of_plain = least_times(works, device, repeats)
        rate = product_operations / product_s
        if plain is not None:  # the further settings are measured against the first one's
            (plain_s,), plain_memory, plain = of_plain, peak_memory(works.pop(), device), None
        memory = peak_memory(step, device)
        inside = products(step, step_operations, device)
        (forward_s,) = least_times([forward], device, repeats)
        yield {
            "setting": name, **setting, "parameters": parameters, "operations_per_sample": forward_operations / batch,
            "forward_s": forward_s, "step_s": step_s, "samples_per_s": batch / step_s, "memory_bytes": memory,
            "total_bytes": memory + 3 * sum(p.numel() * p.element_size() for p in timed.parameters()),
            "matrix_product_rate": rate, "share_of_rate": step_operations / step_s / rate,
            "share_of_time_in_products": inside.share, "rate_in_products": inside.rate / rate,
            "plain_step_s": plain_s, "plain_memory_bytes": plain_memory, "difference_to_plain": difference,
            "ratio_to_plain": plain_s and plain_s / step_s,
            "memory_ratio_to_plain": plain_memory and memory / plain_memory,
        }  # fmt: skip


def _forward(model: nn.Module, x: Tensor, precision: str) -> Work:
    def forward() -> None:
        model.eval()
        with torch.no_grad(), _autocast(x, precision):
            model(x)

    return forward


def _step(model: nn.Module, x: Tensor, y: Tensor, precision: str) -> Work:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        model.train()
        with _autocast(x, precision):
            loss = functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _autocast(x: Tensor, precision: str) -> torch.autocast:
    return torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")


if __name__ == "__main__":
    main()
