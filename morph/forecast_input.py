"""The data that a forecast starts from: a labelled file as xarray opens it, or what a reader brings into the layout."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from morph.claims import ClaimError
from morph.containers import check_container, check_hdf5, check_labelled
from morph.data.adapter import DatasetAdapter
from morph.data.catalogue import find_datasets, open_split, prepare
from morph.layout import DatasetSpec, TrainedOn

__all__ = ["Input", "from_reader", "open_input"]

_TRAJECTORY = "trajectory"
_YAML = (".yaml", ".yml")
_HDF5 = (".h5", ".hdf5")


class Input(NamedTuple):
    """Labelled data.

    dataset: whose values are read when they are asked for; times are numbers, as they are stored.
    known: of data that a reader has brought into the layout, what it is; None of a labelled file.
    name: of `known`.
    """

    dataset: xr.Dataset
    known: TrainedOn | None = None
    name: str | None = None


@contextmanager
def open_input(
    name: str,
    group: str | None,
    split: str | None,
    options: Mapping[str, Any],
    roots: Sequence[str | Path] | None = None,
) -> Iterator[Input]:
    """Open what a forecast starts from, and close it again.

    Args:
        name: Path or URL of what xarray opens, such as NetCDF and Zarr; or what `find_datasets` takes: an entry of
            conf/dataset or the path of a YAML file.  HDF5 whose dimensions have no names goes to a reader as well.
        group: In a labelled file.
        split: Of a data set.
        options, roots: See `find_datasets`.

    Raises:
        ValueError: It cannot be opened, or an option does not go with it.
        FileNotFoundError: There is no such file.
    """
    path = Path(name)
    is_file = path.exists() or "://" in name
    if is_file and path.suffix not in _YAML and not _is_unlabelled(name, group):
        if split is not None:
            raise ValueError(f"split: {name} is a file, which has no splits; leave it out, or give the data set's YAML")
        with _opened(name, group) as dataset:
            yield Input(dataset)
        return
    if not is_file and (len(path.parts) > 1 or path.suffix):  # else an entry of conf/dataset
        raise FileNotFoundError(2, "input: no such file", name)
    if group is not None:
        raise ValueError(f"group: {name} goes through a reader, whose YAML says where in the file the data is")
    whole = is_file and path.suffix not in _YAML
    ((key, config),) = find_datasets([name], options, whole=whole, roots=roots).items()
    prepare(config)
    adapter = open_split(config, split or ("all" if whole else "test"), key)
    spec = replace(adapter.spec, name=key, fields=tuple(replace(f, variables=()) for f in adapter.spec.fields))
    statistics = {} if adapter.statistics is None else {key: adapter.statistics}
    yield Input(from_reader(adapter), TrainedOn(1, {key: spec}, statistics), key)


@contextmanager
def _opened(name: str, group: str | None, **options: Any) -> Iterator[xr.Dataset]:
    try:
        with warnings.catch_warnings():
            # A Zarr store whose metadata lies in many files is slower to open; that is its writer's affair.
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
            check_container(name)
            check_hdf5(name, group)
            stated: dict[str, Any] = {"engine": "zarr"} if _is_zarr(Path(name)) else {}
            stated |= {"group": group, "chunks": None, "cache": False, "decode_times": False, **options}
            # Indexes are made of coordinates, which are read for it.
            with xr.open_dataset(name, create_default_indexes=False, **stated) as unread:
                check_labelled(unread, name)
            dataset = xr.open_dataset(name, **stated)
    except (FileNotFoundError, ClaimError):
        raise
    except Exception as error:
        # The decoders behind xarray raise what they please on what they cannot read.
        reason = str(error).partition("\n")[0]
        raise ValueError(f"input: xarray cannot open {name}: {type(error).__name__}: {reason}") from error
    with dataset:
        yield dataset


def _is_zarr(path: Path) -> bool:
    return path.suffix == ".zarr" or any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def _is_unlabelled(name: str, group: str | None) -> bool:
    """Whether it is HDF5 whose dimensions have no names of their own, or a folder of such files."""
    path = Path(name)
    if path.is_dir():
        return not _is_zarr(path)
    if path.suffix not in _HDF5:
        return False
    try:
        with _opened(name, group, engine="h5netcdf", phony_dims="access") as dataset:
            dims = {str(dim) for variable in dataset.data_vars.values() for dim in variable.dims}
    except ValueError:
        return True
    return not dims or any(dim.startswith("phony_dim") for dim in dims)


class _Frames(BackendArray):
    """One component of all trajectories and frames; a piece is read when it is asked for."""

    def __init__(self, adapter: DatasetAdapter, field: int, component: int) -> None:
        spec = adapter.spec
        self._adapter = adapter
        self._place = (field, component)
        self.shape = (len(adapter), spec.num_steps, *_space(spec))
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        trajectories, frames = np.arange(self.shape[0])[key[0]], np.arange(self.shape[1])[key[1]]
        wanted = np.atleast_1d(frames)
        rows = []
        for trajectory in np.atleast_1d(trajectories):
            read = self._adapter.read(int(trajectory), int(wanted.min()), int(wanted.max()) + 1)
            rows.append(read[:, *self._place].reshape(len(read), *self.shape[2:])[wanted - wanted.min()])
        values = np.stack(rows)
        values = values if np.ndim(frames) else values[:, 0]
        values = values if np.ndim(trajectories) else values[0]
        return values[(*[slice(None)] * (np.ndim(trajectories) + np.ndim(frames)), *key[2:])]


def _space(spec: DatasetSpec) -> tuple[int, ...]:
    return spec.spatial_shape[3 - len(spec.axes) :]


def from_reader(adapter: DatasetAdapter) -> xr.Dataset:
    """The split of a reader as labelled data: a variable for each component, along trajectory, time and space.

    Values are read when they are asked for; parameters are coordinates of the trajectories.
    """
    spec = adapter.spec
    dims = (_TRAJECTORY, "time", *spec.axes)
    variables = {}
    for f, field in enumerate(spec.fields):
        for c, component in enumerate(field.components):
            attrs = {"long_name": component.replace("_", " "), **({"units": field.unit} if field.unit else {})}
            variables[component] = xr.Variable(dims, indexing.LazilyIndexedArray(_Frames(adapter, f, c)), attrs)
    parameters = [adapter.parameters(trajectory) for trajectory in range(len(adapter))] if spec.parameters else []
    coordinates = {
        f"parameter_{name}": (_TRAJECTORY, np.array([values[name] for values in parameters]))
        for name in spec.parameters
    }
    return xr.Dataset(
        variables,
        {
            _TRAJECTORY: np.arange(len(adapter)),
            "time": ("time", adapter.coordinates["time"], {"long_name": "time", "standard_name": "time"}),
            **{axis: (axis, adapter.coordinates[axis], {"long_name": axis}) for axis in spec.axes},
            **coordinates,
        },
        {"title": spec.name},
    )
