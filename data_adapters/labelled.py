"""Reader of whatever xarray opens: NetCDF 3 and 4, Zarr, GRIB where its engine is installed; local, or behind a URL."""

import os
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from data_adapters.choices import Choice, check_texts
from data_adapters.clocks import goes_on, on_one_clock
from data_adapters.contents import CHANNEL, SAMPLE, TIME, Contents, Source, other_spacing, source_of
from data_adapters.files import collection, find_files, fingerprint
from data_adapters.files import join as beside
from data_adapters.grid import GridAdapter, Options, Selection
from data_adapters.handles import FileHandles, Signature, UnreadableError, signature
from data_adapters.plan import check_selection
from data_adapters.remote import is_remote, local_copies, open_remote
from morph.claims import ClaimError, check_entries
from morph.containers import check_container, check_hdf5, check_labelled

__all__ = ["DATASETS", "Opening", "XarrayAdapter"]

_JOINS = ("trajectory", "time")


class Opening(NamedTuple):
    """What decides how a file is opened."""

    location: str
    engine: str | None = None
    group: str | None = None


class XarrayAdapter(GridAdapter):
    """One split of labelled arrays, whose dimensions have names.

    A dimension that is not named here is an axis of space.  Numbers of time are taken in the unit that the file states
    (`dt` of "hours since 1900-01-01" counts hours).  Variables along `sample` alone are parameters of the trajectories.

    Args:
        files: Path, URL or pattern, or a list of them.
        split: train, valid, test or all.
        time: Name of the dimension of time.
        sample: Name of the dimension along which trajectories lie; None: a file is one trajectory.
        channel: Name of the dimension along which components lie; None: there is none.
        engine: Of xarray; None lets it find out.
        group: In the file.
        join: Of several files: "trajectory": further trajectories; "time": the next piece of the same record; None:
            trajectories, unless each file starts where the one before it ends.
        order: Of what a pattern matches: "numeric" (a_2 before a_10) or "lexicographic".
        cache: Folder where remote files are kept; None reads the parts that are needed, each time.
        options: See `data_adapters.grid.Options`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be opened, lacks a dimension or a variable, or differs from the first one; an option
            is wrong.
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Sequence[str],
        split: str = "train",
        *,
        time: str = "time",
        sample: str | None = None,
        channel: str | None = None,
        engine: str | None = None,
        group: str | None = None,
        join: str | None = None,
        order: str = "numeric",
        cache: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        if join is not None and join not in _JOINS:
            raise ValueError(f"{files}: join: expected {' or '.join(_JOINS)}, found {join!r}")
        named = {TIME: time, SAMPLE: sample, CHANNEL: channel}
        check_texts(f"{files}", **named, engine=engine, group=group, cache=cache)
        given = [name for name in named.values() if name is not None]
        if len(set(given)) != len(given) or time is None:
            raise ValueError(f"{files}: time, sample, channel: expected names of different dimensions, found {named}")
        roles = {name: role for role, name in named.items() if name is not None}
        locations = local_copies(find_files(files, order), cache)
        openings = [Opening(file, engine, group) for file in locations]
        store = _LabelledStore(openings, roles, join, *collection(files, cache))
        super().__init__(store, split, **options)
        if join is None and sample is None:
            store.check_apart()


class _LabelledStore:
    divided = False

    def __init__(
        self, openings: Sequence[Opening], roles: Mapping[str, str], join: str | None, name: str, folder: str
    ) -> None:
        self._roles = dict(roles)
        locations = [opening.location for opening in openings]
        self.where = locations[0] if len(locations) == 1 else f"{locations[0]} to {locations[-1]}"
        self.name, self._folder = name, folder
        self.joined = join == "time" and len(openings) > 1
        self.files: Sequence[str] = [self.where] if self.joined else locations
        self._openings = {self.where: list(openings)} if self.joined else {o.location: [o] for o in openings}
        self._ends: list[int] = []  # of the pieces of a joined record, in frames
        self._signatures: dict[Opening, Signature | None] = {}
        self._clocks: dict[Opening, xr.Variable | None] = {}

    def choices(self) -> list[Choice]:
        opening = self._openings[self.files[0]][0]
        with self._fresh(opening) as found:
            numeric = {str(name): self._dims(v) for name, v in found.data_vars.items() if v.dtype.kind in "fiub"}
        moving = {name: dims for name, dims in numeric.items() if TIME in dims}
        most = max((len(set(dims) - {SAMPLE, TIME, CHANNEL}) for dims in moving.values()), default=0)
        names = [name for name, dims in moving.items() if len(set(dims) - {SAMPLE, TIME, CHANNEL}) == most > 0]
        if not names:
            raise ValueError(
                f"{opening.location}: expected a variable along {self._name(TIME)!r} and space, "
                f"found {_listed(found)}; name its dimensions with `time`, `sample` and `channel`"
            )
        # The variables of a Zarr store are folders, which come in another order each time.
        return [Choice(name, (name,)) for name in (sorted(names) if _is_zarr(opening) else names)]

    def contents(self, file: str, chosen: Sequence[Choice]) -> Contents:
        pieces = []
        for opening in self._openings[file]:
            self._signatures[opening] = signature(opening.location)
            with self._fresh(opening) as found:
                pieces.append(self._contents(found, opening.location, chosen))
                self._clocks[opening] = _clock(found, self._name(TIME))
        first = pieces[0]
        if not self.joined:
            return first
        for opening, piece in zip(self._openings[file], pieces, strict=True):
            if piece.sizes != first.sizes or piece.num_trajectories != first.num_trajectories:
                raise ValueError(
                    f"{opening.location}: expected the grid {dict(first.sizes)} and {first.num_trajectories} "
                    f"trajectories of {self._openings[file][0].location}, found {dict(piece.sizes)} and "
                    f"{piece.num_trajectories}; the pieces of a record must agree"
                )
            for what, apart, got_apart in other_spacing(first.coordinates, piece.coordinates):
                raise ValueError(
                    f"{opening.location}: {what} is not that of {self._openings[file][0].location}: expected {apart}, "
                    f"found {got_apart}; the pieces of a record must agree"
                )
            for expected, got in zip(first.sources, piece.sources, strict=True):
                if [_form(source) for source in expected] != [_form(source) for source in got]:
                    raise ValueError(
                        f"{opening.location}: expected a field {expected} as in {self._openings[file][0].location}, "
                        f"found {got}; the pieces of a record must agree"
                    )
        self._ends = list(accumulate(piece.num_steps for piece in pieces))
        try:
            known = on_one_clock([self._clocks[opening] for opening in self._openings[file]])
        except ValueError as error:
            raise ValueError(f"{file}: {first.time_path}: {error}; the pieces of a record must agree") from error
        changed = {"times": None if known is None else np.concatenate(known), "cuts": tuple(self._ends[:-1])}
        return Contents(**{**first.__dict__, **changed, "num_steps": self._ends[-1]})

    def check_apart(self) -> None:
        """
        Raises:
            ValueError: Each file starts where the one before it ends: a split by trajectory would tear one record apart
                without a gap, and a model be judged by the frames next to those it was trained on.
        """
        try:
            known = on_one_clock([self._clocks[self._openings[file][0]] for file in self.files])
        except ValueError:
            return
        if known and len(known) > 1 and goes_on(known):
            raise ValueError(
                f"{self.where}: {self._name(TIME)}: each file starts with the frame after the last of the file before "
                "it, as the pieces of one record do; say `join: time`, or `join: trajectory` if they are different ones"
            )

    def read(self, file: str, path: str, selection: Selection, out: np.ndarray | None = None) -> np.ndarray:
        openings = self._openings[file]
        if not self.joined:
            return self._values(openings[0], path, selection)
        with DATASETS.lend(openings[0]) as found:
            dims = self._dims(found.variables[path])
        if TIME not in dims:
            return self._values(openings[0], path, selection)
        axis = dims.index(TIME)
        wanted = selection[axis]
        assert isinstance(wanted, slice), "frames are asked for as a range"
        frames = range(wanted.start, wanted.stop, wanted.step or 1)
        parts = []
        while frames:
            number = bisect_right(self._ends, frames[0])
            first = self._ends[number - 1] if number else 0
            here = range(frames.start, min(frames.stop, self._ends[number]), frames.step)
            piece = slice(here.start - first, here[-1] + 1 - first, here.step)
            parts.append(self._values(openings[number], path, (*selection[:axis], piece, *selection[axis + 1 :])))
            frames = frames[len(here) :]
        return np.concatenate(parts, axis - sum(isinstance(part, int) for part in selection[:axis]))

    def statistics_place(self, name: str | None) -> str:
        return beside(self._folder, f"{name or self.name}.stats.yaml")

    def unwritten(self, file: str, path: str) -> tuple[int, int]:
        return 0, 0  # Zarr leaves out chunks of nothing but the fill value; xarray decodes NetCDF's as NaN

    def fingerprint(self) -> str:
        return fingerprint([opening.location for openings in self._openings.values() for opening in openings])

    def close(self) -> None:
        DATASETS.close(opening for openings in self._openings.values() for opening in openings)

    def _values(self, opening: Opening, path: str, selection: Selection) -> np.ndarray:
        if self.joined and signature(opening.location) != self._signatures[opening]:
            raise UnreadableError(f"{opening.location}: it has changed since it was opened; start again")
        with DATASETS.lend(opening) as found:
            data = found.variables[path]
            check_selection(data.shape, selection, data.dtype.itemsize, f"{opening.location}: {path}")
            try:
                return data[selection].to_numpy()
            except Exception as error:
                # The decoders behind xarray raise what they please; whatever it is, the values cannot be had.
                raise OSError(f"{type(error).__name__}: {error}") from error

    @contextmanager
    def _fresh(self, opening: Opening) -> Iterator[xr.Dataset]:
        """The file as it is on disk now, closed afterwards; no dimension of it has the name of a role by chance."""
        location = opening.location
        DATASETS.close([opening])
        try:
            with DATASETS.lend(opening) as found:
                for role in (TIME, SAMPLE, CHANNEL):
                    if role in found.dims and role not in self._roles:
                        raise ValueError(
                            f"{location}: expected {role}: {role} among the options, for it has a dimension {role!r}, "
                            f"found {', '.join(f'{key}: {name}' for name, key in self._roles.items())}"
                        )
                yield found
        except (FileNotFoundError, UnreadableError):
            raise
        except Exception as error:
            if type(error) is ValueError and str(error).startswith(location):
                raise
            # The decoders behind xarray raise what they please on a damaged file.
            raise ValueError(
                f"{location}: its metadata cannot be read: {type(error).__name__}: {error}; fetch or generate the file "
                "again"
            ) from error
        finally:
            DATASETS.close([opening])

    def _dims(self, variable: xr.DataArray | xr.Variable) -> tuple[str, ...]:
        return tuple(self._roles.get(str(dim), str(dim)) for dim in variable.dims)

    def _name(self, role: str) -> str:
        return next(name for name, found in self._roles.items() if found == role)

    def _contents(self, found: xr.Dataset, location: str, chosen: Sequence[Choice]) -> Contents:
        for name, role in self._roles.items():
            if name not in found.dims:
                raise ValueError(f"{location}: expected a dimension {name!r} ({role}), found {_listed(found)}")
        sources = []
        axes: list[str] = []
        for choice in chosen:
            if choice.dims is not None:
                raise ValueError(f"{location}: field {choice.name!r}: `dims` has no effect, the file states them")
            parts = []
            for part in choice.parts:
                variable = found.variables.get(part)
                if variable is None or variable.dtype.kind not in "fiub":
                    what = "no such variable" if variable is None else f"values of {variable.dtype}"
                    raise ValueError(f"{location}: no field {part!r} of real numbers: {what}; found {_listed(found)}")
                dims = self._dims(variable)
                axes = max(axes, [dim for dim in dims if dim not in (SAMPLE, TIME, CHANNEL)], key=len)
                unit = variable.attrs.get("units")
                unit = str(unit) if unit not in (None, "", "1") else None
                parts.append(source_of(part, dims, variable.shape, choice, location, unit))
            sources.append(tuple(parts))
        along = {dim for parts in sources for source in parts for dim in source.dims}
        if not 1 <= len(axes) <= 3 or not along <= {SAMPLE, TIME, CHANNEL, *axes} or TIME not in along:
            raise ValueError(
                f"{location}: expected fields along {self._name(TIME)!r} on one grid with 1 to 3 axes, found "
                f"{_listed(found)}; name dimensions that are not space with `sample` and `channel`"
            )
        sizes = {axis: found.sizes[axis] for axis in axes}
        if 0 in sizes.values() or found.sizes[self._name(TIME)] == 0:
            raise ValueError(f"{location}: expected values, found {_listed(found)}")
        for dim in (*axes, *self._roles):
            check_entries(found.sizes[dim], f"{location}: {dim}")
        sample = next((name for name, role in self._roles.items() if role == SAMPLE), None)
        return Contents(
            dataset_name="",
            sizes=sizes,
            num_trajectories=1 if sample is None else found.sizes[sample],
            num_steps=found.sizes[self._name(TIME)],
            sources=tuple(sources),
            boundary={},
            times=_numbers(found, self._name(TIME)),
            coordinates={axis: _coordinate(found, axis) for axis in axes},
            parameters={} if sample is None else _parameters(found, sample),
            time_path=self._name(TIME),
            chunks=_chunks(found, {source.path for parts in sources for source in parts}),
        )


def _form(source: Source) -> tuple[object, ...]:
    """What must be the same in all pieces of a record."""
    return source.dims, [size for dim, size in zip(source.dims, source.shape, strict=True) if dim != TIME], source.unit


def _coordinate(found: xr.Dataset, axis: str) -> Float[np.ndarray, "_"]:
    values = _numbers(found, axis)
    return np.arange(found.sizes[axis], dtype=np.float64) if values is None else values.astype(np.float64)


def _clock(found: xr.Dataset, name: str) -> xr.Variable | None:
    """Coordinate of time, in memory."""
    variable = found.variables.get(name)
    if variable is None or variable.dims != (name,) or variable.dtype.kind not in "fiumM":
        return None
    return xr.Variable(variable.dims, variable.to_numpy(), variable.attrs)


def _numbers(found: xr.Dataset, name: str) -> Float[np.ndarray, "_"] | None:
    """Coordinate of a dimension; dates that an engine has decoded become hours since the first."""
    variable = found.variables.get(name)
    if variable is None or variable.dims != (name,):
        return None
    values = variable.to_numpy()
    if values.dtype.kind in "mM":
        return (values - values[0]) / np.timedelta64(1, "h")
    return values if values.dtype.kind in "fiu" else None


def _parameters(found: xr.Dataset, sample: str) -> dict[str, Float[np.ndarray, "N"]]:
    return {
        str(name): variable.to_numpy().astype(np.float64)
        for name, variable in sorted(found.variables.items(), key=lambda item: str(item[0]))
        if variable.dims == (sample,) and name != sample and variable.dtype.kind in "fiub"
    }


def _chunks(found: xr.Dataset, paths: set[str]) -> dict[str, tuple[int, ...]]:
    stated = {path: found.variables[path].encoding.get("preferred_chunks") or {} for path in paths}
    return {
        path: tuple(chunks.get(dim, 1) for dim in found.variables[path].dims)
        for path, chunks in stated.items()
        if chunks
    }


def _listed(found: xr.Dataset) -> str:
    shown = [f"{name} ({', '.join(f'{d} {n}' for d, n in v.sizes.items())})" for name, v in found.data_vars.items()]
    return ", ".join(shown[:12]) or "no variable at all"


def _is_zarr(opening: Opening) -> bool:
    return opening.engine == "zarr" or opening.location.rstrip("/").endswith(".zarr")


def _open(opening: Opening) -> xr.Dataset:
    location, engine, group = opening
    is_zarr = _is_zarr(opening)
    try:
        if not is_remote(location) and not Path(location).exists():
            raise FileNotFoundError(f"{location}: the file, or what it links to, does not exist")
        check_container(location)
        source = open_remote(location) if is_remote(location) and not is_zarr else location
        check_hdf5(location, group, None if source is location else source)
        with warnings.catch_warnings():  # metadata in many files is slower to open; that is its writer's affair
            warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
            found = xr.open_dataset(
                source,
                engine="zarr" if is_zarr and engine is None else engine,
                group=group,
                chunks=None,
                cache=False,
                decode_times=False,
                create_default_indexes=False,  # which are made of coordinates, read whole
            )
        check_labelled(found, location)
        return found
    except ClaimError as error:
        raise UnreadableError(str(error)) from error
    except FileNotFoundError as error:
        text = str(error)
        raise FileNotFoundError(text if text.startswith(location) else f"{location}: {text}") from error
    except Exception as error:
        # The decoders behind xarray raise what they please on a damaged file.
        raise UnreadableError(
            f"{location}: xarray cannot open it: {type(error).__name__}: {str(error).partition(chr(10))[0]}; "
            "name the `engine` (and install it), or fetch or generate the file again"
        ) from error


# One for the process: the bound holds for all data sets of a mixture together.
DATASETS = FileHandles(_open)
