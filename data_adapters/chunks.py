"""Chunks that cost reading: those that hold several trajectories, or more of the grid than is used."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from data_adapters.contents import CHANNEL, SAMPLE, TIME
from data_adapters.grid import GridAdapter

__all__ = ["chunk_costs", "shared_chunks"]

_TOO_MUCH = 2
"""Times over that a window reads its values, from which on that is said."""
_NUMBERS = 2**18  # of a chunk that is proposed, 1 MB in float32, or one frame


def shared_chunks(name: str, chunk: Sequence[int], dims: Sequence[str], sizes: Mapping[str, int]) -> str:
    """What it costs that a chunk covers several trajectories, and the way out; "" where it covers one.

    Chunks whose shape h5py has chosen (`chunks=True`, compression, `maxshape`) do so.

    Args:
        name: Of the array.
        chunk: Shape of the pieces in which it is stored.
        dims: SAMPLE, TIME, CHANNEL or the name of a spatial axis, for each axis.
        sizes: Length of each spatial axis.
    """
    count = chunk[dims.index(SAMPLE)] if SAMPLE in dims else 1
    if count < 2:
        return ""
    return (
        f"{name}: its chunks of {_shown(chunk)} ({', '.join(dims)}) hold {count} trajectories each, so that reading "
        f"one reads {count}: {_way_out(name, chunk, dims, sizes)}"
    )


def chunk_costs(adapter: GridAdapter) -> Iterator[str]:
    """A sentence for each array of which a window reads much more than it uses.

    Along time nothing is counted: training reads the frames of a chunk one after another (`GridAdapter.run`).
    """
    lengths = {axis: part[-1] - part[0] + 1 for axis, part in adapter.space.items()}
    for name, (chunk, dims) in adapter.chunks.items():
        text = shared_chunks(name, chunk, dims, lengths)
        axes = [(axis, size) for axis, size in zip(dims, chunk, strict=True) if axis in lengths]
        parts = [(adapter.space[axis], size) for axis, size in axes]
        read = prod((part[-1] // size - part[0] // size + 1) * size for part, size in parts)
        times = read / prod(lengths[axis] for axis, _ in axes)
        if not text and times >= _TOO_MUCH:
            text = (
                f"{name}: its chunks of {_shown(chunk)} ({', '.join(dims)}) hold more than the "
                f"{_shown([lengths[axis] for axis, _ in axes])} points that are used, so that a window is read "
                f"{times:.1f} times over: store that part in files of its own, or in smaller chunks"
            )
        if text:
            yield f"{adapter.files[0]}: {text}"


def _way_out(name: str, chunk: Sequence[int], dims: Sequence[str], sizes: Mapping[str, int]) -> str:
    """Chunks of one trajectory, whole frames, and as many frames as there were if that is not large."""
    frame = prod(sizes.get(dim, 1) for dim in dims) * prod(n for d, n in zip(dims, chunk, strict=True) if d == CHANNEL)
    most = {SAMPLE: 1, TIME: max(1, _NUMBERS // frame)}
    better = [sizes.get(dim, min(size, most.get(dim, size))) for dim, size in zip(dims, chunk, strict=True)]
    return f"rewrite it, if it is HDF5 with h5repack -l {name}:CHUNK={'x'.join(map(str, better))} old.h5 new.h5"


def _shown(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
