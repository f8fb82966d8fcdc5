"""The data sets of conf/dataset keep to one set of keys, and their cards in the README are what the YAML says."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_adapters import cards
from data_adapters.suite.systems import SYSTEMS, find_system
from morph.data.catalogue import open_split

DATASETS = cards.read_datasets()
COMMON = {
    "_target_", "fields", "axes", "boundary", "dt", "frames", "space", "splits", "missing", "name", "batch_size",
    "prepare", "card",
}  # fmt: skip
ARRAYS = {"files", "order", "dims", "coordinates", "parameters"}
KEYS = {
    "data_adapters.hdf5.WellAdapter": {*COMMON, "path"} - {"splits"},
    "data_adapters.hdf5.ArrayAdapter": COMMON | ARRAYS,
    "data_adapters.hdf5.GroupAdapter": COMMON | ARRAYS,
    "data_adapters.labelled.XarrayAdapter": {*COMMON, "files", "time", "sample", "channel", "engine", "group", "join"},
}
PRETRAINING = {
    "well_mhd_64", "pdebench_diffreact2d", "pdebench_cfd1d", "pdebench_ns2d", "pdebench_cfd3d", "pdebench_swe2d",
}  # fmt: skip
FINE_TUNING = {
    "pdebench_reacdiff1d", "pdebench_cfd2d", "pdebench_cfd3d_turb", "pdebench_burgers1d",
    "well_gray_scott_reaction_diffusion", "well_turbulence_gravity_cooling", "pdegym_fns_kf",
}  # fmt: skip


def made_up() -> dict[str, Any]:
    """A data set with a complete card."""
    return {
        "_target_": "data_adapters.hdf5.ArrayAdapter",
        "files": "${data_dir}/${level}/a_*.h5",
        "dims": ["sample", "time", "channel", "x", "y"],
        "fields": ["p", {"name": "v", "from": ["vx", "vy"]}, {"name": "q", "from": "data", "channels": [4, 5]}],
        "boundary": {"x": "periodic", "y": "wall"},
        "splits": {"by": "trajectory", "order": ["test", "valid", "train"], "valid": 0.05, "test": 7},
        "batch_size": 4,
        "card": {
            "equation": "heat",
            "source": "arXiv 1234.56789",
            "licence": "CC BY 4.0",
            "size": "1 GB",
            "trajectories": 12345,
            "frames": 101,
            "dt": 0.05,
            "grid": [64, 64],
            "warnings": ["Mind the gap."],
        },
    }


def test_the_readme_is_what_the_yaml_files_say(call: Any, tmp_path: Path) -> None:
    done = call("data_adapters.cards", "--check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = cards.README.read_text(encoding="utf-8")
    assert cards.replace_section(text, cards.render(DATASETS)) == text


def test_a_readme_that_differs_is_found_and_written_anew(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = cards.README.read_text(encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(right.replace("71.6 GB", "71.7 GB"), encoding="utf-8")
    monkeypatch.setattr(cards, "README", readme)
    found = call("data_adapters.cards", "--check", cwd=tmp_path)
    assert found.returncode == 1
    assert "run python -m data_adapters.cards" in found.stderr
    assert "71.7 GB" in readme.read_text(encoding="utf-8")
    assert call("data_adapters.cards", cwd=tmp_path).returncode == 0
    assert readme.read_text(encoding="utf-8") == right
    readme.write_text(right.replace(cards.END, ""), encoding="utf-8")
    assert "expected one line" in call("data_adapters.cards", cwd=tmp_path).stderr


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_keeps_to_the_keys(name: str) -> None:
    config = DATASETS[name]
    assert config["_target_"] in KEYS
    assert set(config) <= KEYS[config["_target_"]]
    assert isinstance(config["batch_size"], int)
    assert config["batch_size"] > 0
    counts = cards.count_components(config)
    assert 1 <= len(counts) == len(config["fields"]) <= 3
    assert max(counts.values()) <= 3
    card = config["card"]
    if isinstance(config.get("dt"), float) and isinstance(card["dt"], float):
        assert config["dt"] == card["dt"]
    if "dims" in config:
        spatial = [axis for axis in config["dims"] if axis not in ("sample", "time", "channel")]
        assert len(spatial) == len(card["grid"])
        assert set(config.get("coordinates", {})) <= {"time", *spatial}
        assert set(config.get("axes", spatial)) == set(spatial)
        assert ("sample" in config["dims"]) == config["_target_"].endswith("ArrayAdapter")
        assert ("channel" in config["dims"]) == any("channels" in field for field in config["fields"])
        assert "dt" in config or "time" in config["coordinates"]
        splits = config["splits"]
        assert set(splits["order"]) == {"train", "valid", "test"}
        assert splits["valid"] + splits["test"] < card["trajectories"]
    # The interpolations are those that the commands give.
    options = {"data_dir": "data", "level": "tiny", "suite_seed": 0}
    OmegaConf.to_container(OmegaConf.merge(options, config), resolve=True)


def test_the_sets_of_the_published_model_are_there_and_say_so() -> None:
    stated = {name: config["card"].get("published") for name, config in DATASETS.items()}
    assert {name for name, stage in stated.items() if stage == "pretraining"} == PRETRAINING
    assert {name for name, stage in stated.items() if stage == "fine-tuning"} == FINE_TUNING


def test_the_cards_of_the_suite_are_its_systems_at_level_small() -> None:
    assert {name for name, config in DATASETS.items() if "prepare" in config} == set(SYSTEMS)
    for name in SYSTEMS:
        system, card = find_system(name), DATASETS[name]["card"]
        small = system.levels["small"]
        assert card["trajectories"] == f"{sum(small.num_trajectories.values())} at level small"
        assert card["frames"] == f"{small.num_frames} at level small"
        assert card["grid"] == [small.num_points] * system.num_dims
        assert card["dt"] == system.dt
        size = sum(system.num_bytes("small", split) for split in small.num_trajectories)
        assert card["size"] == f"{size / 1e6:.0f} MB at level small"
        vectors = {field for field, count in cards.count_components(DATASETS[name]).items() if count > 1}
        assert vectors == (set(system.vectors) if system.num_dims > 1 else set())


def test_what_a_card_says_of_its_data_set_follows_from_its_keys() -> None:
    text = cards.render({"mine": made_up()})
    splits = "7 test, 5 % valid, rest train (of each file)"
    assert f"| mine | p, v, q | 3 × 2 | 64² | 101 | 12,345 | x periodic, y wall | {splits} |" in text.splitlines()
    assert "### Others" in text
    assert "- **files**: `data/<level>/a_*.h5`" in text
    assert "- **size**: 1 GB; trajectories 12,345; frames 101; dt 0.05" in text
    other = made_up()
    other["files"] = "a.h5"
    other["splits"] = {"by": "time", "valid": 0.2}
    other["card"]["boundary"] = "as the files state"
    text = cards.render({"well_mine": other})
    assert "| as the files state | rest train, 20 % valid, 10 % test, shuffled with seed 0, of the frames |" in text
    assert "### The Well" in text


@pytest.mark.parametrize("key", [*made_up()["card"], "boundary"])
def test_a_card_without_a_key_is_refused_with_file_and_key(key: str) -> None:
    config = made_up()
    (config if key == "boundary" else config["card"]).pop(key)
    with pytest.raises(ValueError, match=re.escape(f"conf/dataset/mine.yaml: card.{key} is missing; expected")):
        cards.render({"mine": config})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("equation", " "), ("source", 3), ("trajectories", 0), ("frames", True), ("dt", -1.0), ("grid", 64),
        ("grid", [64, 0]), ("warnings", "Mind the gap."), ("boundary", {"x": "wall"}), ("published", "yes"),
        ("license", "CC BY 4.0"),
    ],
)  # fmt: skip
def test_a_malformed_card_is_refused_with_file_and_key(key: str, value: Any) -> None:
    config = deepcopy(made_up())
    config["card"][key] = value
    with pytest.raises(ValueError, match=rf"conf/dataset/mine.yaml: card.{key}: .*expected"):
        cards.render({"mine": config})


def test_a_data_set_without_a_card_is_refused() -> None:
    with pytest.raises(ValueError, match=r"conf/dataset/mine.yaml: card: expected a mapping with equation, source"):
        cards.render({"mine": {**made_up(), "card": None}})


@pytest.mark.parametrize("key", ["_target_", "fields", "files"])
def test_a_key_that_the_card_is_derived_from_is_asked_for(key: str) -> None:
    config = made_up()
    del config[key]
    with pytest.raises(ValueError, match=rf"conf/dataset/mine.yaml: {key} is missing"):
        cards.render({"mine": config})


def test_the_card_is_not_passed_to_the_adapter() -> None:
    config = {**made_up(), "_target_": "builtins.dict", "files": "a.h5"}
    passed = dict(open_split(config, "valid"))  # type: ignore[call-overload]
    assert set(passed) == {"files", "dims", "fields", "boundary", "splits", "split"}
