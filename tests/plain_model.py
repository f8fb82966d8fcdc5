"""The published arithmetic, stated as plainly as possible: every axis, padding and projection is computed.

Its own implementation, which shares nothing with `morph.model`: the oracle of the tests and the baseline of the
benchmark.  Its tensors carry the published names, so a published state loads into it as it is, and its own state is a
file in the published layout.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

__all__ = ["PlainModel"]


class PlainLinear(nn.Module):
    """A Linear with, where a rank is given, LoRA factors beside it."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float | None) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.scale = (2.0 if alpha is None else alpha / rank) if rank else 0.0
        if rank:
            self.A = nn.Parameter(torch.randn(rank, inputs) * 0.02)
            self.B = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T) if self.scale else self.base(x)


class PlainConvolution(nn.Module):
    """Components padded to their maximum, a 1x1x1 convolution, 3x3x3 convolutions on every axis."""

    def __init__(self, max_components: int, filters: int) -> None:
        super().__init__()
        self.input_proj = nn.Conv3d(max_components, 8, 1, bias=False)
        layers: list[nn.Module] = []
        channels = 8
        while channels < filters:
            layers += [nn.Conv3d(channels, 2 * channels, 3, padding=1, bias=False), nn.LeakyReLU(0.2)]
            channels *= 2
        layers += [nn.Conv3d(channels, filters, 3, padding=1, bias=False), nn.LeakyReLU(0.2)]
        self.conv_stack = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        missing = self.input_proj.in_channels - x.shape[1]
        padded = torch.cat((x, x.new_zeros(x.shape[0], missing, *x.shape[2:])), 1)
        return self.conv_stack(self.input_proj(padded))


class PlainFieldAttention(nn.Module):
    """One learned query attends to the F tokens of a patch: torch's own multi-head attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.randn(1, 1, dim))
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.q.expand(x.shape[0], 1, -1), x, x, need_weights=False)[0][:, 0]


class PlainEmbedding(nn.Module):
    """Convolution, patches, features padded with zeros, projection, attention over fields."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.patch = config["patch_size"]
        self.features = config["conv_filter"] * self.patch**3
        self.conv_features = PlainConvolution(config["max_components"], config["conv_filter"])
        self.projection = nn.Linear(self.features, config["dim"])
        self.field_attn = PlainFieldAttention(config["dim"], config["heads_xa"])

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, fields, components, depth, height, width = x.shape
        x = self.conv_features(x.reshape(batch * steps * fields, components, depth, height, width))
        p = [1 if size == 1 else self.patch for size in (depth, height, width)]
        grid = [depth // p[0], height // p[1], width // p[2]]
        x = x.reshape(batch, steps, fields, -1, grid[0], p[0], grid[1], p[1], grid[2], p[2])
        x = x.permute(0, 1, 4, 6, 8, 2, 3, 5, 7, 9)  # batch, time, grid, field, (channel, z, y, x)
        x = x.reshape(batch * steps * math.prod(grid), fields, -1)
        x = torch.cat((x, x.new_zeros(*x.shape[:2], self.features - x.shape[2])), 2)
        return self.field_attn(self.projection(x)).reshape(batch, steps, *grid, -1)


class PlainPositions(nn.Module):
    """The learned table, resampled to the grid."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.bilinear = config["model_size"] == "L" and config["max_ar"] > 1
        self.pos_embedding = nn.Parameter(torch.randn(1, config["max_ar"], config["max_patches"], config["dim"]))
        self.dropout = nn.Dropout(config["dropout"])

    def forward(self, x: Tensor) -> Tensor:
        steps, patches = x.shape[1], math.prod(x.shape[2:5])
        if self.bilinear:
            table = self.pos_embedding.permute(0, 3, 1, 2)
            table = functional.interpolate(table, size=(steps, patches), mode="bilinear", antialias=True)
            table = table.permute(0, 2, 3, 1)
        else:
            rows = self.pos_embedding[0, :steps].transpose(1, 2)
            table = functional.interpolate(rows, size=patches, mode="linear", align_corners=False).transpose(1, 2)
        return x + self.dropout(table.reshape(1, *x.shape[1:]))


class PlainAxis(nn.Module):
    """Self-attention along one axis, with its softmax written out, whatever the axis' length."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, self.heads = config["dim"], config["heads"]
        for name in "qkvo":
            setattr(self, name, PlainLinear(dim, dim, config["lora_r_attn"], config["lora_alpha"]))

    def forward(self, x: Tensor, axis: int) -> Tensor:
        x = x.movedim(axis, -2)
        shape = (*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        q, k, v = (layer(x).reshape(shape).transpose(-2, -3) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(shape[-1])).softmax(-1)
        return self.o((weights @ v).transpose(-2, -3).reshape(x.shape)).movedim(-2, axis)


class PlainAxialAttention(nn.Module):
    """Time first, if there is more than one frame; then depth, height and width, which read the same tokens."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.attn_t, self.attn_d, self.attn_h, self.attn_w = (PlainAxis(config) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 1:
            x = x + self.attn_t(x, 1)
        return x + self.attn_d(x, 2) + self.attn_h(x, 3) + self.attn_w(x, 4)


class PlainBlock(nn.Module):
    """x + axial(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, hidden, rate = config["dim"], config["mlp_dim"], config["dropout"]
        lora = config["lora_r_mlp"], config["lora_alpha"]
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.axial_attn = PlainAxialAttention(config)
        self.mlp = nn.Sequential(
            PlainLinear(dim, hidden, *lora),
            nn.GELU(),
            nn.Dropout(rate),
            PlainLinear(hidden, dim, *lora),
            nn.Dropout(rate),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.axial_attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainDecoder(nn.Module):
    """Every row of the output layer on every token; what the data does not have is cut off afterwards."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        outputs = config["max_fields"] * config["max_components"] * config["patch_size"] ** 3
        self.norm, self.linear = nn.LayerNorm(config["dim"]), nn.Linear(config["dim"], outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class PlainModel(nn.Module):
    """Frames (B, T, F, C, D, H, W), normalised by the caller, to the next frame (B, F, C, D, H, W).

    Takes the published options by their published names; `dropout` is 0.1 in every published size.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        config = {
            "patch_size": 8, "dim": 256, "depth": 4, "heads": 4, "heads_xa": 32, "mlp_dim": 1024, "conv_filter": 8,
            "max_ar": 1, "max_patches": 4096, "max_fields": 3, "max_components": 3, "model_size": None,
            "lora_r_attn": 0, "lora_r_mlp": 0, "lora_alpha": None, "dropout": 0.1,
        } | options  # fmt: skip
        self.patch = config["patch_size"]
        self.patch_embedding = PlainEmbedding(config)
        self.pos_encoding = PlainPositions(config)
        self.transformer_blocks = nn.ModuleList(PlainBlock(config) for _ in range(config["depth"]))
        self.decoder = PlainDecoder(config)

    def stages(self, context: Tensor) -> Iterator[Tensor]:
        """Tokens of the embedding, tokens after the last block, output."""
        x = self.patch_embedding(context)
        yield x
        x = self.pos_encoding(x)
        for block in self.transformer_blocks:
            x = block(x)
        yield x
        _, _, fields, components, *sizes = context.shape
        z, y, w = (1 if size == 1 else self.patch for size in sizes)
        grid = x.shape[2:5]
        x = self.decoder(x)[:, -1, ..., : fields * components * z * y * w]
        x = x.reshape(-1, *grid, fields, components, z, y, w)
        yield x.permute(0, 4, 5, 1, 6, 2, 7, 3, 8).reshape(-1, fields, components, *sizes)

    def forward(self, context: Tensor) -> Tensor:
        *_, output = self.stages(context)
        return output
