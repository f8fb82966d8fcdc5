"""`python -m experiments.execute [notebook ...]`: run notebooks from top to bottom and store what comes out of them."""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from morph.provenance import write_whole

__all__ = ["LARGEST", "check", "execute", "main", "normalise", "with_parameters"]

HERE = Path(__file__).resolve().parent
LARGEST = 500_000
"""Bytes of a stored notebook: it is read on the web, and every version stays in the repository."""

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_CHECKOUT = "/path/to/morph"
_TIMEOUT = 3600


class _ThisInterpreter(KernelSpecManager):
    """The kernel is the interpreter that runs this, whatever kernels are installed for the user."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        # A history would be one file for all kernels of the user, which wait for each other there.
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=[*command, "--HistoryManager.enabled=False"], display_name=kernel_name)


def with_parameters(notebook: NotebookNode, parameters: Mapping[str, Any]) -> NotebookNode:
    """A copy in which the cell with the tag `parameters` ends with other values.

    Args:
        notebook: It has one such cell, of assignments.
        parameters: Values by name; each must be assigned in that cell.

    Raises:
        ValueError: There is no such cell, or it does not assign the name.
    """
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    cells = [cell for cell in copy.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"parameters: expected one cell with this tag, found {len(cells)}")
    (cell,) = cells
    known = [line.split(" = ")[0] for line in cell.source.splitlines() if " = " in line]
    if unknown := set(parameters) - set(known):
        raise ValueError(f"parameters: expected some of {', '.join(known)}, found {', '.join(sorted(unknown))}")
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    return copy


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run every cell in a new kernel of this interpreter, and return the notebook with the outputs.

    Args:
        notebook: Is changed.
        folder: Working folder of the kernel; Jupyter takes that of the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raises an error.
    """
    with tempfile.TemporaryDirectory() as private:
        # Files in place of ports, where there are such: two kernels that start at once cannot take each other's.
        files = {} if os.name == "nt" else {"transport": "ipc", "ip": f"{private}/kernel"}
        manager = AsyncKernelManager(
            kernel_spec_manager=_ThisInterpreter(), connection_file=f"{private}/kernel.json", **files
        )
        client = NotebookClient(
            notebook, km=manager, timeout=_TIMEOUT, record_timing=False, coalesce_streams=True,
            resources={"metadata": {"path": str(folder)}},
        )  # fmt: skip
        # A profile of the user's could change what the cells do.
        environment = {**os.environ, "IPYTHONDIR": f"{private}/profile"}
        return asyncio.run(client.async_execute(cleanup_kc=True, env=environment))


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Take out what differs from machine to machine: versions, all metadata but tags, and where the checkout is."""
    notebook.metadata = NotebookNode(kernelspec=_KERNEL, language_info={"name": "python"})
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key == "tags"})
        for output in cell.get("outputs", ()):
            shown = output.get("data", output)
            for kind, text in shown.items():
                if kind.startswith("text") and isinstance(text, str):
                    shown[kind] = text.replace(str(HERE.parent), _CHECKOUT)
    return notebook


def check(notebook: NotebookNode, name: str) -> str:
    """What is stored of an executed notebook.

    Raises:
        ValueError: It is too large, says something on standard error, or shows paths or the user of this machine.
    """
    text = nbformat.writes(notebook) + "\n"
    if len(text) > LARGEST:
        raise ValueError(f"{name}: expected at most {LARGEST} bytes, found {len(text)}; show smaller figures")
    private = {str(HERE.parent), str(Path.home()), tempfile.gettempdir(), sys.prefix}
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise ValueError(f"{name}, cell {number}: it says on standard error: {output.text}")
            # Not in images, whose text can be anything.
            data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
            shown = json.dumps(data) + output.get("text", "")
            if found := [path for path in private if path in shown]:
                raise ValueError(f"{name}, cell {number}: its output shows {found[0]}, a path of this machine")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Execute the notebooks that are named, or all, each in its own folder, and store them."""
    names = sys.argv[1:] if arguments is None else arguments
    paths = [Path(name) for name in names] or sorted(HERE.glob("*.ipynb"))
    if missing := [str(path) for path in paths if path.suffix != ".ipynb" or not path.is_file()]:
        sys.exit(f"error: expected notebooks, such as experiments/dataset_tour.ipynb; found {', '.join(missing)}")
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        start = time.perf_counter()
        text = check(normalise(execute(notebook, path.parent)), path.name)
        write_whole(path, text)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
