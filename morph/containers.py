"""HDF5, NetCDF and Zarr from anybody: they hold numbers of their own, of a size that can be, and no code."""

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morph.claims import ClaimError, check_entries, check_memory

if TYPE_CHECKING:
    import h5py
    import xarray

__all__ = ["check_container", "check_hdf5", "check_labelled", "check_owned", "check_url", "refuse_pickles"]

_PROTOCOLS = (
    "http", "https", "hf", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "ftp", "sftp", "ssh", "file",
    "local", "memory",
)  # fmt: skip


def check_url(url: str) -> None:
    """Refuse what is more than an address: fsspec's chains (reference::https://...) run templates that a server sends.

    Raises:
        ClaimError: Its protocol is none of those that fetch bytes and do nothing else.
    """
    protocol = url.partition("://")[0].lower()
    if protocol not in _PROTOCOLS:
        raise ClaimError(
            f"{url}: expected a URL of {', '.join(_PROTOCOLS)}, found {protocol!r}; fetch the file yourself"
        )


def check_container(location: str) -> None:
    """Before xarray opens anything: a URL is an address and no more, and a store of Zarr unpickles nothing.

    Raises:
        ClaimError: See `check_url`.
    """
    if "://" in location:
        check_url(location)
    refuse_pickles()


def check_owned(data: "h5py.Dataset", file: "h5py.File", location: str) -> None:
    """Make sure that the numbers of an array lie in its file, or in files of its folder.

    HDF5 can show bytes of any file of the machine as an array: a private one would end in pictures and forecasts.

    Args:
        data: The array.
        file: That was opened.
        location: Its path or URL.

    Raises:
        ClaimError: A link, a virtual array or external storage leads elsewhere; or one of its pieces would not fit into
            memory.
    """
    where = f"{location}: {data.name}"
    if data.id.get_create_plist().get_external_count():
        raise ClaimError(
            f"{where}: its values are the raw bytes of another file (HDF5's external storage), which is not read; "
            "store them in the file itself: h5repack old.h5 new.h5"
        )
    folder = os.path.abspath(os.path.dirname(location))
    others = {source.file_name for source in data.virtual_sources()} - {"."} if data.is_virtual else set()
    if data.file != file:
        others.add(data.file.filename)
    for other in others:
        place = os.path.abspath(os.path.join(folder, str(other)))
        if "://" in location or not Path(place).is_relative_to(folder):
            raise ClaimError(
                f"{where}: its values lie in {other}, outside of the folder of its file, where nothing is read; put "
                "that file beside it, or name it itself"
            )
    if data.chunks:
        check_memory(prod(data.chunks) * data.dtype.itemsize, f"{where}: one of its chunks {data.chunks}")


def check_hdf5(location: str, group: str | None = None, source: Any = None) -> None:
    """Make sure of all arrays of a file that another library is about to open; a file that is no HDF5 passes.

    Args:
        location: Path or URL of the file.
        group: In which its arrays lie.
        source: Open file that stands for the location.

    Raises:
        ClaimError: See `check_owned`.
    """
    import h5py

    if source is None and (not os.path.isfile(location) or not h5py.is_hdf5(location)):
        return
    try:
        with h5py.File(location if source is None else source, "r") as file:
            place = file[group] if group else file
            for name in place:
                node = place.get(name)
                if isinstance(node, h5py.Dataset):
                    check_owned(node, file, location)
    except (OSError, KeyError):
        return  # which the library that is about to open it says in words
    finally:
        if source is not None:
            source.seek(0)


def check_labelled(found: "xarray.Dataset", location: str) -> None:
    """Make sure that coordinates, and pieces in which arrays are stored, can be held in memory.

    Args:
        found: Opened without indexes, for which coordinates are read whole.
        location: Path or URL.

    Raises:
        ClaimError: One cannot.
    """
    for name, variable in found.variables.items():
        if variable.dims == (name,):
            check_entries(variable.size, f"{location}: {name}")
        stated = variable.encoding.get("chunks") or variable.encoding.get("chunksizes")
        if stated and all(isinstance(size, int) for size in stated):
            check_memory(prod(stated) * variable.dtype.itemsize, f"{location}: {name}: one of its chunks {stated}")


def refuse_pickles() -> None:
    """From here on, Zarr refuses arrays whose values are Python pickles: reading one executes what it says.

    The codec is taken out of the library's register for the whole process, for a store can be opened by anyone and is
    read much later.
    """
    import numcodecs
    from numcodecs.abc import Codec

    class Refused(Codec):
        """In the place of `numcodecs.Pickle`."""

        codec_id = "pickle"

        @classmethod
        def from_config(cls, config: Mapping[str, Any]) -> Codec:
            raise ClaimError("an array is stored as Python pickles, which execute what they say when they are read")

        def encode(self, buf: Any) -> Any:
            raise ClaimError("Python pickles are not written")

        def decode(self, buf: Any, out: Any = None) -> Any:
            raise ClaimError("Python pickles are not read")

    numcodecs.register_codec(Refused)
