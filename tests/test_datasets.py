"""Every data set of conf/dataset reads files in the layout of its publishers: each value in its place, in one split."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dataset_files import WRITERS
from layout_files import closed
from omegaconf import OmegaConf

from data_adapters.splits import SPLITS
from morph.data.catalogue import find_datasets, open_split
from tests.conftest import ROOT

CONF = ROOT / "conf" / "dataset"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if "prepare" not in OmegaConf.load(path))

# The published model's fields and their order, where it has the set; else what the YAML chose, stated again.
FIELDS = {
    "mhd_64": "magnetic_field velocity density", "mhd_256": "magnetic_field velocity density",
    "diffreact2d": "u v", "diffsorp1d": "u", "swe2d": "h", "ns2d": "velocity", "ace": "u",
    "planetswe": "velocity height",
    "advection1d": "u", "burgers1d": "u", "reacdiff1d": "u", "gray_scott_reaction_diffusion": "A B",
    "active_matter": "velocity concentration", "rayleigh_taylor_instability": "velocity density",
    "acoustic_scattering": "velocity pressure speed_of_sound", "euler": "momentum density pressure",
    "helmholtz": "pressure_re pressure_im mask", "rayleigh_benard": "velocity buoyancy pressure",
    "post_neutron": "velocity density electron_fraction", "shear_flow": "velocity tracer pressure",
    "supernova": "velocity density temperature", "turbulence_gravity_cooling": "velocity density temperature",
    "visco": "velocity pressure c_zz", "fns_kf": "velocity", "ns_": "velocity", "wave": "u c",
    "cfd": "velocity density pressure", "ce_": "velocity density pressure", "gce_rt": "velocity density pressure",
    "convective": "velocity density pressure", "turbulent_radiative": "velocity density pressure",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


def test_every_data_set_has_its_files_here() -> None:
    assert sorted(WRITERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_data_set(tmp_path: Path, name: str) -> None:
    written = WRITERS[name](tmp_path)
    (config,) = find_datasets(str(CONF / f"{name}.yaml"), {"data_dir": str(tmp_path), "level": "none"}).values()
    if "frames" in config:  # of files that differ in length the first frames are used; here they are this short
        config = {**config, "frames": {"stop": next(iter(written.fields.values())).shape[1]}}
    short = name.partition("_")[2]
    names = next(fields for start, fields in FIELDS.items() if short.startswith(start)).split()
    seen: list[int] = []
    for split in SPLITS:
        adapter = open_split(config, split)
        spec = adapter.spec
        assert [entry.name for entry in spec.fields] == names
        assert [len(entry.components) for entry in spec.fields] == [written.fields[n].shape[2] for n in names]
        assert spec.axes == tuple(written.axes)
        assert spec.boundary[3 - len(spec.axes) :] == tuple(written.boundary)
        assert spec.dt == pytest.approx(config.get("dt", written.dt))
        assert spec.parameters == tuple(written.parameters)
        assert len(adapter) == len(written.trajectories[split])
        for number, row in enumerate(written.trajectories[split]):
            frames = adapter.read(number, 0, spec.num_steps)
            for index, entry in enumerate(names):
                values = written.fields[entry][row]
                found = frames[:, index, : values.shape[1]].reshape(spec.num_steps, *values.shape[1:])
                np.testing.assert_array_equal(found, np.broadcast_to(values, found.shape))
                assert not frames[:, index, values.shape[1] :].any()
            assert adapter.parameters(number) == {key: rows[row] for key, rows in written.parameters.items()}
        seen += written.trajectories[split]
        if name.startswith("well_"):
            assert adapter.statistics is not None
            means = [1.0 if written.fields[n].shape[2] > 1 else 2.0 for n in names]
            np.testing.assert_allclose(adapter.statistics.mean[:, 0], means)
            assert (adapter.statistics.mean.numpy()[~spec.component_mask] == 0).all()
            np.testing.assert_allclose(adapter.statistics.std, means)
        else:
            assert adapter.statistics is None
    assert sorted(seen) == list(range(len(next(iter(written.fields.values())))))


def test_no_data_set_has_more_fields_than_the_published_checkpoints_have_room_for() -> None:
    for name in NAMES:
        fields = OmegaConf.load(CONF / f"{name}.yaml").fields
        assert 1 <= len(fields) <= 3, name
