"""The model: normalise, embed, mix, decode, denormalise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morph.layout import Conditions, Context, State, Tokens, TrainedOn
from morph.model.decoder import Decoder
from morph.model.embedding import PatchEmbedding, patch_shape
from morph.model.folder import fetch, read_folder, write_folder
from morph.model.local import PARTS, Local
from morph.model.mixer import AxialAttention, Block, Kept
from morph.model.padding import pad
from morph.model.position import LearnedPositions
from morph.model.stored import check_config
from morph.model.surrogate import Capacity, Surrogate
from morph.normalisation import Normalisation, Scales
from morph.trust import stored_module

__all__ = ["Capacity", "Morph"]

_DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")
_CAPACITY = Capacity()


class Morph(Surrogate, ModelHubMixin, library_name="morph", paper_url="https://arxiv.org/abs/2509.21670"):
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
        local: Options of `Local`, which adds to the tokens' increment what is local; None: without.
        token_frames: The tokens see the last so many frames, the local parts all; None: the tokens do, too.

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
        capacity: Capacity | Mapping[str, int] = _CAPACITY,
        resample_positions: str = "linear",
        mixer: Callable[..., nn.Module] = AxialAttention,
        normalisation: str = "context",
        predict: str = "increment",
        base: str = "persistence",
        filling: str = "zero",
        local: Mapping[str, Any] | None = None,
        token_frames: int | None = None,
    ) -> None:
        super().__init__(capacity, Normalisation(normalisation, predict, base))
        if filling not in ("zero", "repeat"):
            raise ValueError(f"filling: expected one of zero, repeat, found {filling!r}")
        if token_frames is not None and (isinstance(token_frames, bool) or token_frames < 1):
            raise ValueError(f"token_frames: expected at least 1, or null for all, found {token_frames!r}")
        self.patch_size = patch_size
        self.token_frames = token_frames
        self.filling = filling
        size = self.capacity
        mlp_dim = 4 * dim if mlp_dim is None else mlp_dim
        self._options = {
            "dim": dim, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, "filters": filters,
            "patch_size": patch_size, "field_heads": field_heads, "dropout": dropout,
            "capacity": asdict(size), "resample_positions": resample_positions, "mixer": _describe(mixer),
            "normalisation": normalisation, "predict": predict, "base": base, "filling": filling,
            "local": _plain(local), "token_frames": token_frames,
        }  # fmt: skip
        self.embedding = PatchEmbedding(dim, patch_size, filters, field_heads, size.max_components)
        self.positions = LearnedPositions(dim, size.max_context, size.max_patches, resample_positions, dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout, mixer) for _ in range(depth))
        self.decoder = Decoder(dim, patch_size, size.max_fields, size.max_components, zero=predict == "increment")
        if local is not None and (unknown := set(local) - set(PARTS)):
            raise ValueError(f"local: expected some of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
        if local is not None and (predict, base) != ("increment", "persistence"):
            raise ValueError(
                "local: what it says is an increment on the last frame; set predict=increment and base=persistence, or "
                f"local=null, found predict={predict} and base={base}"
            )
        self.local = None if local is None else Local(size.max_fields, size.max_components, **(_plain(local) or {}))

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which `from_config` builds the same architecture."""
        return dict(self._options)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The embedding and the blocks."""
        return (self.embedding, *self.blocks)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Morph":
        """Inverse of `config`.

        Raises:
            ValueError: An option is missing or unknown, or the mixer named there is no module of morph or torch.nn, nor
                of a package that the user trusts; nothing else is imported because of a file.
        """
        known = set(signature(cls.__init__).parameters) - {"self"}
        if "mixer" not in config or set(config) - known:
            raise ValueError(
                f"the stored configuration is not that of a Morph: expected {', '.join(sorted(known))}; "
                f"found {', '.join(config)}"
            )
        options = dict(config)
        found, further = stored_module(options.pop("mixer"), "mixer")
        if issubclass(found, Surrogate):
            raise ValueError(f"the stored configuration names the mixer {found.__name__}, which is a whole model")
        return cls(mixer=partial(found, **further), **options)

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
        check_config(config, weights, {})
        with torch.device("meta"):  # the weights are put in place as they are
            model = cls.from_config({**config, **options})
        model.restore(weights)
        model.trained_on = TrainedOn.from_dict(trained_on) if trained_on else None
        return model

    def output(self, frames: Context, conditions: Conditions, scales: Scales) -> State:
        """See `Surrogate.output`."""
        tokens = self._mix(frames[:, -(self.token_frames or 0) :], conditions, last_only=True)
        patch = patch_shape(frames.shape[4:], self.patch_size)
        d, h, w = frames.shape[4:]
        decoded: State = self.decoder(tokens[:, -1], *frames.shape[2:4], patch)[..., :d, :h, :w]
        if self.local is None:
            return decoded
        return self.local(frames, decoded, conditions, scales.std / scales.increment)

    def encode(self, context: Context, conditions: Conditions | None = None) -> Tokens:
        """The tokens after the last block, for all context frames."""
        conditions = self._conditions(context, conditions)
        scales = self.normalisation.scales(context, conditions)
        return self._mix(self.normalisation.normalise(context, scales), conditions)

    def _mix(self, frames: Context, conditions: Conditions, last_only: bool = False) -> Kept:
        if self.filling == "repeat" and not conditions.all_physical:
            frames = frames.where(conditions.component_mask[..., None, None, None], frames[:, :, :, :1])
        frames = pad(frames, self.patch_size, conditions.boundary)
        tokens = self.positions(self._run(self.embedding, frames.to(self.positions.table.dtype)))
        for number, block in enumerate(self.blocks, start=1):
            tokens = self._run(block, tokens, last_only=last_only and number == len(self.blocks))
        return tokens

    def _run(self, part: nn.Module, x: Tensor, **options: bool) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(partial(part, **options), x, use_reentrant=False)
        return part(x, **options)


def _plain(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Nested options as what JSON can hold."""
    if options is None:
        return None
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in options.items()}


def _describe(mixer: Callable[..., nn.Module]) -> dict[str, Any]:
    function: Any = mixer.func if isinstance(mixer, partial) else mixer
    options = mixer.keywords if isinstance(mixer, partial) else {}
    return {"_target_": f"{function.__module__}.{function.__qualname__}", **options}
