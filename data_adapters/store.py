"""What a file format has to offer, and that the files of a data set agree."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from data_adapters.choices import Choice
from data_adapters.contents import Contents, check_times, differences, uniform_step

__all__ = ["Selection", "Store", "agreeing"]

Selection = tuple[int | slice, ...]


class Store(Protocol):
    """Files of one format.

    files: path or URL of each.
    where: what the user named, for messages.
    name: of the data set, where its files do not say.
    divided: the format itself divides into splits; else `GridAdapter` does.
    """

    files: Sequence[str]
    where: str
    name: str
    divided: bool

    def statistics_place(self, name: str | None) -> str:
        """Where the scales of the training split are, of a data set that the user calls by a name."""

    def choices(self) -> list[Choice]:
        """Fields that are read where the user names none."""

    def contents(self, file: str, chosen: Sequence[Choice]) -> Contents:
        """Metadata of a file as it is on disk now."""

    def read(self, file: str, path: str, selection: Selection, out: np.ndarray | None = None) -> np.ndarray:
        """A piece of an array; in `out` where that is given and the format can read in place."""

    def unwritten(self, file: str, path: str) -> tuple[int, int]:
        """Pieces of an array that were never written, and all; (0, 0) where the format does not tell."""

    def fingerprint(self) -> str:
        """Of the names, the order and the sizes of the files of the training split, or of all that are divided."""

    def close(self) -> None:
        """Close what is open in this process."""


def agreeing(
    store: Store,
    chosen: Sequence[Choice],
    dt: float | None,
    faults: list[str] | None = None,
    stop: int | None = None,
) -> tuple[list[Contents], float]:
    """Metadata of all files, which are alike, and the time step.

    Args:
        store: The files.
        chosen: Fields that are read.
        dt: Time between two frames, None for what the files say.
        faults: Where given, files that cannot be used are taken out of the store, each with its reason here.
        stop: Frames from here on are not used, so that files may differ in how many there are.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file cannot be read, holds nothing, or is not like the first one.
    """
    contents: list[Contents] = []
    usable: list[str] = []
    step = 0.0
    for file in store.files:
        try:
            found, found_step = _metadata(store, file, chosen, dt)
            step = step or found_step
            first = contents[0] if contents else found
            for what, expected, got in differences(first, step, found, found_step, stop):
                remedy = {
                    "the number of frames": "use as many as all have with frames: {stop: ...}, or ",
                    "dt": "state one `dt` for all, or ",
                }.get(what, "")
                raise ValueError(
                    f"{file}: {what} is not that of {usable[0]}: expected {expected}, found {got}; "
                    f"the files of a split must agree: {remedy}move this one into a data set of its own"
                )
        except (ValueError, OSError) as error:
            if faults is None:
                raise
            faults.append(str(error))
            continue
        contents.append(found)
        usable.append(file)
    if not usable:
        more = f"; so are {len(store.files) - 1} more" if len(store.files) > 1 else ""
        raise ValueError(f"{(faults or ['no file'])[0]}{more}")
    store.files = usable
    return contents, step


def _metadata(store: Store, file: str, chosen: Sequence[Choice], dt: float | None) -> tuple[Contents, float]:
    """Of one file, and its time step."""
    found = store.contents(file, chosen)
    if found.num_trajectories < 1:
        raise ValueError(f"{file}: expected one or more trajectories, found {found.num_trajectories}")
    if dt is not None:
        # It says what a step is called, and not that the frames follow each other.
        if found.times is not None:
            check_times(found.times, found.cuts, f"{file}: {found.time_path}")
        return found, float(dt)
    if found.times is None:
        raise ValueError(
            f"{file}: it states no times; give `dt`, the time between two frames, or the array in coordinates.time"
        )
    return found, uniform_step(found.times, f"{file}: {found.time_path}")
