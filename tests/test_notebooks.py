"""The notebooks run from top to bottom on the tiny suite; what is stored of them can be read on the web."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.font_manager  # noqa: F401  # once here: a kernel that had to build the cache would say so
import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from experiments.execute import LARGEST, check, execute, main, normalise, with_parameters
from morph.data.catalogue import find_datasets, open_split
from tests.conftest import ROOT, run_module

FOLDER = ROOT / "experiments"
NAMES = ("dataset_tour", "lora_finetune", "zero_shot_rollout")


def _stored(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def _run(name: str, folder: Path, asked: str, **parameters: Any) -> dict[str, Any]:
    """Run a stored notebook with other parameters, and return values of its variables at the end."""
    notebook = with_parameters(_stored(name), parameters)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({asked}))"))
    execute(notebook, folder)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures, "a notebook shows something"
    return json.loads(outputs[-1].text)


@pytest.fixture(scope="module")
def demo(suite_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs/demo` as `make demo` leaves it, after two steps of a small model."""
    folder = tmp_path_factory.mktemp("demo")
    done = run_module(
        "morph.train", "+experiment=demo", "level=tiny", f"data_dir={suite_root}", "model.dim=64", "model.depth=1",
        "mixture.steps_per_epoch=2", "trainer.max_epochs=1", "loader.validation_windows=2", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "demo"


@pytest.mark.slow
def test_the_zero_shot_rollout_scores_as_the_command_does(demo: Path, suite_root: Path, tmp_path: Path) -> None:
    found = _run(
        "zero_shot_rollout", tmp_path,
        "{'difference': difference, 'errors': errors.values.tolist(), 'frames': len(pictures)}",
        CHECKPOINT=str(demo), CATALOGUE=str(ROOT / "conf" / "dataset"), DATA=str(suite_root), LEVEL="tiny", STEPS=3,
        OUT="out",
    )  # fmt: skip
    assert found["difference"] < 1e-5  # two ways to the same errors
    errors = np.array(found["errors"])  # forecast, lead time, trajectory, field
    assert errors.shape == (3, 3, 2, 1)
    assert np.isfinite(errors).all()
    assert (errors > 0).all()
    assert found["frames"] == 3
    # Persistence by hand: velocity of the last frame of the context against the first that follows.
    config = find_datasets(str(ROOT / "conf" / "dataset" / "ns3d.yaml"), _options(suite_root))["ns3d"]
    frames = open_split(config, "test").read(0, 3, 5)[:, 0].astype(np.float64)
    rmse = np.sqrt(((frames[1] - frames[0]) ** 2).mean((1, 2, 3)))
    assert errors[1, 0, 0, 0] == pytest.approx((rmse / frames[1].std((1, 2, 3), ddof=1)).mean(), rel=1e-4)


@pytest.mark.slow
def test_a_file_of_ones_own_goes_all_the_way_to_a_forecast(demo: Path, tmp_path: Path) -> None:
    found = _run(
        "lora_finetune", tmp_path,
        "{'vrmse': {name: vrmse.sel(forecast=name).values.tolist() for name in vrmse.forecast.values},"
        " 'times': (forecast.time == new.time[13:29]).values.tolist(), 'unit': forecast.dye.attrs['units'],"
        " 'aligned': bool((error == forecast.dye.values - new.dye.values[13:29]).all()),"
        " 'places': bool((forecast.x == new.x).all() & (forecast.y == new.y).all())}",
        CHECKPOINT=str(demo), OUT="out", RUNS=11, STEPS=2, EPOCHS=1,
    )  # fmt: skip
    assert found["times"] == [True] * 16
    assert found["aligned"]
    assert found["places"]
    assert found["unit"] == "kg m-3"
    assert set(found["vrmse"]) == {"fine-tuned", "from scratch", "persistence", "extrapolation"}
    errors = np.array(list(found["vrmse"].values()))
    assert np.isfinite(errors).all()
    assert (errors > 0).all()
    # Two steps have taught little, but the law of the dye's motion is in the frames that the models see.
    assert found["vrmse"]["fine-tuned"][0] < 0.5 * found["vrmse"]["persistence"][0]
    assert found["vrmse"]["extrapolation"][-1] > 2 * found["vrmse"]["persistence"][-1]


def test_the_tour_reads_what_is_in_the_files(suite_root: Path, tmp_path: Path) -> None:
    found = _run(
        "dataset_tour", tmp_path,
        "{'difference': float(difference), 'relative': float(relative),"
        " 'sizes': {name: len(adapter) for name, adapter in adapters.items()}}",
        CATALOGUE=str(ROOT / "conf" / "dataset"), DATA=str(suite_root), LEVEL="tiny", OUT="out",
    )  # fmt: skip
    assert found["difference"] == 0
    assert found["relative"] < 1e-5
    entries = [f"{ROOT}/conf/dataset/{name}.yaml" for name in found["sizes"]]
    datasets = find_datasets(entries, _options(suite_root))
    assert found["sizes"] == {name: len(open_split(dataset, "train")) for name, dataset in datasets.items()}
    assert len(datasets) == 10


def _options(suite_root: Path) -> dict[str, Any]:
    return {"data_dir": str(suite_root), "level": "tiny", "suite_seed": 0}


def test_a_missing_checkpoint_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    for name in ("zero_shot_rollout", "lora_finetune"):
        with pytest.raises(CellExecutionError, match="there is nothing at runs/none; `make demo`"):
            execute(with_parameters(_stored(name), {"CHECKPOINT": "runs/none"}), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_can_be_read_on_the_web(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    notebook = _stored(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # Executed once, from top to bottom, in a new kernel, and not changed since.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert normalise(_stored(name)) == notebook
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    for output in outputs:
        texts = [output.get("text", ""), *(t for k, t in output.get("data", {}).items() if k.startswith("text"))]
        for text in texts:
            assert not re.search(r"/(home|root|tmp|work|mnt|opt|var|usr|private|Users)\b|[A-Z]:\\", text), text
            assert "\x1b" not in text, "colours and bars of a terminal"


def test_all_notebooks_are_listed() -> None:
    assert sorted(path.stem for path in FOLDER.rglob("*.ipynb")) == sorted(NAMES)
    for readme in (ROOT / "README.md", FOLDER / "README.md"):
        for name in NAMES:
            assert f"{name}.ipynb)" in readme.read_text(), f"{readme}: {name}"


def test_links_of_the_notebooks_exist() -> None:
    for name in NAMES:
        for cell in _stored(name).cells:
            if cell.cell_type == "markdown":
                for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
                    assert target.startswith("http") or (FOLDER / target).exists(), f"{name}: {target}"


def _made_up(*sources: str) -> NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    return nbformat.v4.new_notebook(cells=cells)


def test_parameters_replace_those_of_the_notebook_and_no_others() -> None:
    notebook = _made_up("A = 1\nB = 'b'", "A")
    changed = with_parameters(notebook, {"A": 3})
    values: dict[str, Any] = {}
    exec(changed.cells[0].source, values)
    assert (values["A"], values["B"]) == (3, "b")
    assert notebook.cells[0].source == "A = 1\nB = 'b'"
    with pytest.raises(ValueError, match="expected some of A, B, found C"):
        with_parameters(notebook, {"C": 1})
    with pytest.raises(ValueError, match="expected one cell with this tag, found 0"):
        with_parameters(nbformat.v4.new_notebook(), {})


def test_the_command_stores_what_comes_out_and_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sum.ipynb"
    nbformat.write(_made_up("A = 1", "import tempfile\nprint(tempfile.gettempdir())\nA + 1"), path)
    with pytest.raises(ValueError, match=r"sum.ipynb, cell 2: its output shows .*, a path of this machine"):
        main([str(path)])
    assert _outputs(path) == []  # it is as it was
    nbformat.write(_made_up("A = 1", "import os\nprint(os.path.exists('sum.ipynb'))\nA + 1"), path)
    main([str(path)])
    once = path.read_text()
    assert "sum.ipynb" in capsys.readouterr().out
    assert [output.get("text") or output.data["text/plain"] for output in _outputs(path)] == ["True\n", "2"]
    main([str(path)])
    assert path.read_text() == once


def test_what_is_no_notebook_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"expected notebooks, such as .*; found nowhere.ipynb, README.md"):
        main(["nowhere.ipynb", "README.md"])


def _outputs(path: Path) -> list[NotebookNode]:
    return [output for cell in nbformat.read(path, as_version=4).cells for output in cell.outputs]


def test_what_nobody_wants_to_read_is_not_stored() -> None:
    notebook = _made_up("")
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    with pytest.raises(ValueError, match="cell 1: it says on standard error: a warning"):
        check(notebook, "made up")
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="x" * LARGEST)]
    with pytest.raises(ValueError, match=f"expected at most {LARGEST} bytes"):
        check(notebook, "made up")
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/html": f"in {ROOT}/runs"})]
    with pytest.raises(ValueError, match="a path of this machine"):
        check(notebook, "made up")
    assert "in /path/to/morph/runs" in check(normalise(notebook), "made up")
