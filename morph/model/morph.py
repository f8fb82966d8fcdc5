"""The model: normalise, embed, mix, decode, denormalise."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morph.layout import AXES, Boundary, Conditions, Context, State, Tokens, TrainedOn
from morph.model.decoder import Decoder
from morph.model.embedding import PatchEmbedding, patch_shape
from morph.model.folder import fetch, read_folder, write_folder
from morph.model.mixer import AxialAttention, Block, Kept
from morph.model.position import LearnedPositions
from morph.normalisation import Normalisation, Scales

if TYPE_CHECKING:  # it takes half a second to import, and what trains does without
    import xarray

__all__ = ["Capacity", "Morph"]

_ALIGNMENT = 64  # bytes
_DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")


@dataclass(frozen=True)
class Capacity:
    """The largest problem that a model takes.

    Args:
        max_fields: Length of F.
        max_components: Length of C.
        max_context: Frames of context T.
        max_patches: Rows of the position table; more or fewer patches are interpolated.
    """

    max_fields: int = 3
    max_components: int = 3
    max_context: int = 4
    max_patches: int = 4096

    def admit(self, what: str, context: int, fields: int, components: int) -> None:
        """Check that data fits.

        Raises:
            ValueError: It has more frames, fields or components; begins with `what`.
        """
        found = {"max_context": context, "max_fields": fields, "max_components": components}
        for name, count in found.items():
            if count > getattr(self, name):
                noun = "context frames" if name == "max_context" else name.removeprefix("max_")
                raise ValueError(
                    f"{what} has {count} {noun}, the model takes at most {getattr(self, name)}; "
                    f"build it with model.capacity.{name}={count}"
                )


class Morph(nn.Module, ModelHubMixin, library_name="morph", paper_url="https://arxiv.org/abs/2509.21670"):
    """Convolutional vision transformer for fields in one to three dimensions (arXiv 2509.21670).

    Takes and returns physical units; scales come from the context (see `Normalisation`).  `save_pretrained(folder)` and
    `from_pretrained(folder or name on the Hugging Face hub)` write and read config.json and safetensors.

    Args:
        dim: Embedding dimension E.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_dim: Hidden width of the block's perceptron, 4 dim by default.
        filters: Channels of the component-wise convolution.
        patch_size: Edge of a patch; sizes that it does not divide are padded and cropped.
        field_heads: Heads of the attention over fields.
        dropout: Of positions and perceptrons.
        capacity: Largest number of fields, components and context frames.
        resample_positions: See `LearnedPositions`.
        mixer: Called with (dim=, heads=) for each block; returns a `TokenMixer`.
        normalisation, predict, base: See `Normalisation`.
        filling: What the model sees in components that a field does not have: "zero", or, in published models,
            "repeat": the field's first one.

    Raises:
        ValueError: An option is unknown, or heads do not divide dim.
    """

    def __init__(
        self,
        *,
        dim: int = 256,
        depth: int = 4,
        heads: int = 4,
        mlp_dim: int | None = None,
        filters: int = 8,
        patch_size: int = 8,
        field_heads: int = 32,
        dropout: float = 0.1,
        capacity: Capacity | Mapping[str, int] = Capacity(),
        resample_positions: str = "linear",
        mixer: Callable[..., nn.Module] = AxialAttention,
        normalisation: str = "context",
        predict: str = "increment",
        base: str = "persistence",
        filling: str = "zero",
    ) -> None:
        super().__init__()
        if filling not in ("zero", "repeat"):
            raise ValueError(f"filling: expected one of zero, repeat, found {filling!r}")
        self.capacity = capacity if isinstance(capacity, Capacity) else Capacity(**capacity)
        self.normalisation = Normalisation(normalisation, predict, base)
        if base == "linear" and self.capacity.max_context < 2:
            raise ValueError("base=linear needs a context of at least 2 frames; raise model.capacity.max_context")
        self.patch_size = patch_size
        self.filling = filling
        size = self.capacity
        mlp_dim = 4 * dim if mlp_dim is None else mlp_dim
        self._options = {
            "dim": dim, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, "filters": filters,
            "patch_size": patch_size, "field_heads": field_heads, "dropout": dropout,
            "capacity": asdict(size), "resample_positions": resample_positions, "mixer": _describe(mixer),
            "normalisation": normalisation, "predict": predict, "base": base, "filling": filling,
        }  # fmt: skip
        self.embedding = PatchEmbedding(dim, patch_size, filters, field_heads, size.max_components)
        self.positions = LearnedPositions(dim, size.max_context, size.max_patches, resample_positions, dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout, mixer) for _ in range(depth))
        self.decoder = Decoder(dim, patch_size, size.max_fields, size.max_components, zero=predict == "increment")
        # What it learned from, as far as it is known: forecasts of labelled data are compared with it.
        self.trained_on: TrainedOn | None = None
        self.adapter: dict[str, Any] = {}  # see morph.model.adapter
        # How it is run, not what it is: see morph.execution.
        self.activation_checkpointing = False

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which `from_config` builds the same architecture."""
        return dict(self._options)

    @property
    def stored(self) -> dict[str, Any]:
        """`config`, with `trained_on` where that is known: what config.json of an export says."""
        return {**self.config, **({"trained_on": self.trained_on.to_dict()} if self.trained_on else {})}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Morph":
        """Inverse of `config`.

        Raises:
            ValueError: An option is missing or unknown, or the mixer named there is no module of morph.model; nothing
                else is imported because of a file.
        """
        known = set(signature(cls.__init__).parameters) - {"self"}
        if "mixer" not in config or set(config) - known:
            raise ValueError(
                f"the stored configuration is not that of a Morph: expected {', '.join(sorted(known))}; "
                f"found {', '.join(config)}"
            )
        options = dict(config)
        mixer = dict(options.pop("mixer"))
        target = mixer.pop("_target_")
        module, _, name = target.rpartition(".")
        found = getattr(import_module(module), name, None) if module.startswith("morph.model.") else None
        # A module of this package can hold names of others, such as functions that import what they are told to.
        if not (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module):
            raise ValueError(
                f"the stored configuration names the mixer {target!r}, which is no module of morph.model; "
                "build the model yourself with Morph(mixer=...) and load its weights"
            )
        return cls(mixer=partial(found, **mixer), **options)

    def restore(self, weights: Mapping[str, Tensor]) -> "Morph":
        """Take over weights, in the precision that the model has, and turn to evaluation.

        A model on the device "meta" takes the tensors themselves, so that models can share them.

        Raises:
            ValueError: A tensor is missing, unknown or of another shape.
        """
        kinds = {name: value.dtype for name, value in self.state_dict().items()}
        fitting = {name: _alone(value).to(kinds.get(name)) for name, value in weights.items()}
        try:
            self.load_state_dict(fitting, assign=self.positions.table.is_meta)
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit the configuration: {error}") from error
        return self.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        if any(".lora_" in name for name, _ in self.named_parameters()):
            raise ValueError(
                "the model carries an adapter, which config.json cannot say; merge it first: merge_adapter"
            )
        write_folder(save_directory, self.stored, self.state_dict())

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Morph":
        # The mixin hands over what it read from config.json as well, changed where the caller asked for it.
        download = {name: options.pop(name) for name in _DOWNLOAD}
        folder = Path(model_id) if Path(model_id).is_dir() else fetch(model_id, **download)
        config, weights = read_folder(folder)
        trained_on = config.pop("trained_on", None)
        options.pop("trained_on", None)
        model = cls.from_config({**config, **options}).restore(weights)
        model.trained_on = TrainedOn.from_dict(trained_on) if trained_on else None
        return model

    def forward(self, context: Context, conditions: Conditions | None = None) -> State:
        """The next frame, in physical units.

        Args:
            context: Frames in physical units, oldest first.
            conditions: What else is known; without it every component is physical and boundaries are open.  Points that
                it calls absent keep the value of the last frame, which must be finite.

        Raises:
            ValueError: More fields, components or frames than the model's capacity.
        """
        conditions = self._conditions(context, conditions)
        scales = self.normalisation.scales(context, conditions)
        tokens = self._mix(context, conditions, scales, last_only=True)
        patch = patch_shape(context.shape[4:], self.patch_size)
        output = self.decoder(tokens[:, -1], *context.shape[2:4], patch)
        d, h, w = context.shape[4:]
        state = self.normalisation.denormalise(output[..., :d, :h, :w].to(context.dtype), context, scales)
        if conditions.absent is not None:
            state = torch.where(conditions.absent, context[:, -1], state)
        return state if conditions.all_physical else state * conditions.component_mask[..., None, None, None]

    def forecast(self, dataset: "xarray.Dataset", steps: int, **options: Any) -> "xarray.Dataset":
        """Continue labelled data by `steps` frames, see `morph.forecast.forecast`, which says what `options` there are.

        Raises:
            ValueError: The data cannot be understood, or is not like that of the training.
        """
        from morph.forecast import forecast

        return forecast(self, dataset, steps, **options)

    def encode(self, context: Context, conditions: Conditions | None = None) -> Tokens:
        """The tokens after the last block, for all context frames."""
        conditions = self._conditions(context, conditions)
        return self._mix(context, conditions, self.normalisation.scales(context, conditions))

    def unit_of_error(self, context: Context, conditions: Conditions | None = None) -> Float[Tensor, "B F"]:
        """The physical size of an error that the loss counts as one, per sample and field."""
        scales = self.normalisation.scales(context, self._conditions(context, conditions))
        return self.normalisation.unit_of_error(scales)

    def _mix(self, context: Context, conditions: Conditions, scales: Scales, last_only: bool = False) -> Kept:
        frames = self.normalisation.normalise(context, scales)
        if self.filling == "repeat" and not conditions.all_physical:
            frames = frames.where(conditions.component_mask[..., None, None, None], frames[:, :, :, :1])
        frames = _pad(frames, self.patch_size, conditions.boundary)
        tokens = self.positions(self._run(self.embedding, frames.to(self.positions.table.dtype)))
        for number, block in enumerate(self.blocks, start=1):
            tokens = self._run(block, tokens, last_only=last_only and number == len(self.blocks))
        return tokens

    def _run(self, part: nn.Module, x: Tensor, **options: bool) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(partial(part, **options), x, use_reentrant=False)
        return part(x, **options)

    def _conditions(self, context: Context, conditions: Conditions | None) -> Conditions:
        self.capacity.admit("the context", *context.shape[1:4])
        if conditions is not None:
            return conditions
        mask = torch.ones(*context.shape[2:4], dtype=torch.bool, device=context.device)
        return Conditions(mask, all_physical=True)


def _alone(value: Tensor) -> Tensor:
    """A tensor with memory of its own, which starts where torch would let it start.

    A part of a larger one would keep that in memory and in files; and matrix products round differently from another
    alignment, which a file that was mapped into memory has.
    """
    whole = value.nbytes == value.untyped_storage().nbytes()
    return value if value.is_meta or (whole and value.data_ptr() % _ALIGNMENT == 0) else value.clone()


def _pad(
    frames: Context, patch_size: int, boundary: tuple[Boundary, Boundary, Boundary]
) -> Float[Tensor, "B T F C D_padded H_padded W_padded"]:
    """Grow each axis to a multiple of the patch: around the period, or by repeating the last value."""
    for axis, kind in enumerate(boundary, start=frames.ndim - len(AXES)):
        size = frames.shape[axis]
        missing = -size % patch_size
        if size > 1 and missing:
            index = torch.arange(size + missing, device=frames.device)
            index = index % size if kind == "periodic" else index.clamp(max=size - 1)
            frames = frames.index_select(axis, index)
    return frames


def _describe(mixer: Callable[..., nn.Module]) -> dict[str, Any]:
    function: Any = mixer.func if isinstance(mixer, partial) else mixer
    options = mixer.keywords if isinstance(mixer, partial) else {}
    return {"_target_": f"{function.__module__}.{function.__qualname__}", **options}
