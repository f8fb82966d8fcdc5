"""Small files of every published data set in conf/dataset, in the layout of its publishers.

What the files hold stands here a second time, from the publishers' readers and writers and not from the YAML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from layout_files import (
    DT,
    counted,
    write_cfd,
    write_chunks,
    write_groups,
    write_incompressible,
    write_netcdf,
    write_tensor,
)
from well_files import Boundary, WellField, WellFile, write_file, write_stats

from data_adapters.splits import SPLITS

__all__ = ["WRITERS", "Written"]

SIZES = (4, 3, 2)


@dataclass
class Written:
    """What was written for one data set.

    Args:
        fields: name -> [trajectory of the splits in file order, T, component, *axes], of length 1 where constant.
        trajectories: For each split, which rows of `fields`.
        dt: The YAML's, else that of the files.
    """

    fields: Mapping[str, np.ndarray]
    trajectories: Mapping[str, Sequence[int]]
    boundary: Sequence[str]
    axes: Sequence[str]
    parameters: Mapping[str, Sequence[float]] = field(default_factory=dict)
    dt: float = DT


def tenths(num_files: int, count: int, order: Sequence[str]) -> dict[str, list[int]]:
    """A tenth of each file for testing and for validation, in blocks."""
    found: dict[str, list[int]] = {split: [] for split in order}
    for file in range(num_files):
        first = file * count
        for split in order:
            size = count // 10 if split != "train" else count - 2 * (count // 10)
            found[split] += range(first, first + size)
            first += size
    return found


FIRST, LAST = ("test", "valid", "train"), ("train", "valid", "test")


def pdebench_tensor(data: Path, file: str, names: Sequence[str], boundary: str = "periodic") -> Written:
    """`names`: of the parameters, which stand in the file names."""
    values = counted((20, 3, SIZES[0]))
    parameters: dict[str, list[float]] = {name: [] for name in names}
    for number, part in enumerate(np.split(values, 2)):
        given = {name: 0.5 + number + column for column, name in enumerate(names)}
        path = data / "pdebench" / file.format(*(f"{value:g}" for value in given.values()))
        write_tensor(path, part, **given)
        for name, value in given.items():
            parameters[name] += [value] * 10
    return Written({"u": values[:, :, None]}, tenths(2, 10, FIRST), [boundary], "x", parameters)


def pdebench_cfd(data: Path, files: Sequence[str], dim: int, boundary: str) -> Written:
    axes = "xyz"[:dim]
    names = ["density", "pressure", *(f"V{axis}" for axis in axes)]
    values = counted((len(names), 10 * len(files), 2, *SIZES[:dim]))
    parameters: dict[str, list[float]] = {name: [] for name in ("eta", "zeta", *(["M"] if dim > 1 else []))}
    for number, file in enumerate(files):
        given = {name: 0.5 + number + column for column, name in enumerate(parameters)}
        part = values[:, 10 * number : 10 * number + 10]
        write_cfd(data / "pdebench" / file, dict(zip(names, part, strict=True)), **given)
        for name, value in given.items():
            parameters[name] += [value] * 10
    fields = {
        "velocity": np.moveaxis(values[2:], 0, 2),
        "density": values[0, :, :, None],
        "pressure": values[1, :, :, None],
    }
    return Written(fields, tenths(len(files), 10, FIRST), [boundary] * dim, axes, parameters)


def pdebench_groups(data: Path, file: str, fields: Sequence[str], dim: int, boundary: str) -> Written:
    values = counted((20, 3, *SIZES[:dim], len(fields)))
    write_groups(data / "pdebench" / file, values)
    found = {name: np.expand_dims(values[..., number], 2) for number, name in enumerate(fields)}
    return Written(found, tenths(1, 20, LAST), [boundary] * dim, "xyz"[:dim])


def pdebench_incompressible(data: Path) -> Written:
    """274 files of four trajectories: the tenth is one of all, not of a file."""
    velocity, particles = counted((20, 3, 4, 3, 2)), counted((20, 3, 4, 3, 1), 5000)
    force = counted((20, 4, 3, 2), 9000)
    for number, place in enumerate([0, 1, 2, 10, 11]):
        part = slice(4 * number, 4 * number + 4)
        path = data / "pdebench" / "2D" / "NS_incom" / f"ns_incom_inhom_2d_512-{place}.h5"
        write_incompressible(path, velocity[part], particles[part], force[part])
    fields = {"velocity": np.moveaxis(velocity, -1, 2)}
    return Written(fields, tenths(1, 20, FIRST), ["wall", "wall"], "xy", dt=0.005)


EULER = {"density": [0], "velocity": [1, 2], "pressure": [3]}


def pdegym(
    data: Path,
    folder: str,
    variable: str,
    channels: Mapping[str, Sequence[int]],
    num_channels: int,
    dt: float,
    held_out: tuple[int, int] = (120, 240),
    boundary: str = "periodic",
    transposed: bool = False,
) -> Written:
    """Chunks that are joined in the order of their names as text; the last trajectories are for testing."""
    count = sum(held_out) + 5
    values = counted((count, 2, num_channels, *SIZES[:2]))
    dims = ["sample", "time", "channel", "x", "y"]
    stored = values
    if transposed:
        stored, dims = values.swapaxes(-1, -2), [*dims[:3], "y", "x"]
    if not channels:  # a scalar has no axis of channels
        stored, dims, channels = values[:, :, 0], ["sample", "time", "x", "y"], {"u": [0]}
    # Twelve of them, so that 10 and 11 stand before 2.
    write_chunks(data / "pdegym" / folder, variable, stored, dims, [2] * 11 + [count - 22])
    fields = {name: values[:, :, list(numbers)] for name, numbers in channels.items()}
    return Written(fields, last(count, *held_out), [boundary] * 2, "xy", dt=dt)


def last(count: int, valid: int, test: int) -> dict[str, range]:
    return {
        "train": range(count - valid - test),
        "valid": range(count - valid - test, count - test),
        "test": range(count - test, count),
    }


def pdegym_wave(data: Path, name: str, dt: float) -> Written:
    solution, speed = counted((305, 2, 4, 3)), counted((305, 4, 3), 10000)
    variables = {"c": (("sample", "x", "y"), speed), "solution": (("sample", "time", "x", "y"), solution)}
    write_netcdf(data / "pdegym" / name / f"{name}.nc", variables)
    fields = {"u": solution[:, :, None], "c": speed[:, None, None]}
    return Written(fields, last(305, 60, 240), ["open", "open"], "xy", dt=dt)


def well(
    data: Path, folder: str, axes: str, fields: str, vectors: str = "velocity", constant: str = "", dt: float = DT
) -> Written:
    """`fields`: all of the files, besides `vectors` scalars; `constant`: those that vary in space alone."""
    names, chosen_axes = fields.split(), axes.split()
    grid = {axis: np.arange(size, dtype="f4") for axis, size in zip(chosen_axes, SIZES, strict=False)}
    sizes = SIZES[: len(chosen_axes)]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    kinds = ["periodic", "wall", "open"][: len(chosen_axes)]
    trajectories: dict[str, range] = {}
    for part, split in enumerate(SPLITS):
        for file in range(2):
            entries = {}
            for number, name in enumerate(names):
                vector = name in vectors.split()
                lead = (1, 1) if name in constant.split() else (2, 3)
                # Numbers that no other file or field holds.
                shape = (*lead, *sizes, *((len(sizes),) if vector else ()))
                values = counted(shape, 1 + 500 * (number + len(names) * (2 * part + file)))
                found[name].append(np.moveaxis(values, -1, 2) if vector else values[:, :, None])
                varies = name not in constant.split()
                entries[name] = WellField(
                    values if varies else values[0, 0], int(vector), sample_varying=varies, time_varying=varies
                )
            contents = WellFile(
                grid,
                DT * np.arange(3, dtype="f4"),
                2,
                entries,
                [Boundary(kind.upper(), [axis]) for kind, axis in zip(kinds, chosen_axes, strict=True)],
                {"viscosity": np.array([0.5, 1.5]) + 2 * file},
                dataset_name=folder,
            )
            write_file(data / "the_well" / folder / "data" / split / f"{folder}_{file}.hdf5", contents)
        trajectories[split] = range(4 * part, 4 * part + 4)
    table = {name: [1.0] * len(sizes) if name in vectors.split() else 2.0 for name in names}
    varying = {name: value for name, value in table.items() if name not in constant.split()}
    write_stats(data / "the_well" / folder, {"mean": table, "std": table, "rms_delta": varying})
    rows = {
        # A constant of a file is that of its two trajectories.
        name: np.concatenate([np.repeat(piece, 2, axis=0) if len(piece) == 1 else piece for piece in pieces])
        for name, pieces in found.items()
    }
    parameters = {"viscosity": [0.5, 1.5, 2.5, 3.5] * 3}
    return Written(rows, trajectories, kinds, chosen_axes, parameters, dt)


ACOUSTIC = {"axes": "x y", "fields": "pressure velocity density speed_of_sound", "constant": "density speed_of_sound"}
FLOW = "density pressure energy velocity"
NOVA = "pressure density temperature velocity"
PLASMA = "density magnetic_field velocity"
LAYER = "density pressure velocity"
CHANNEL_FLOW = "pressure c_zz velocity"
VELOCITY = {"velocity": [0, 1]}
CFD_1D, CFD_2D, CFD_3D = "1D/CFD/Train/1D_CFD_", "2D/CFD/2D_Train_", "3D/Train/3D_CFD_"

WRITERS: dict[str, Any] = {
    "pdebench_advection1d": partial(
        pdebench_tensor, file="1D/Advection/Train/1D_Advection_Sols_beta{}.hdf5", names=["beta"]
    ),
    "pdebench_burgers1d": partial(pdebench_tensor, file="1D/Burgers/Train/1D_Burgers_Sols_Nu{}.hdf5", names=["Nu"]),
    "pdebench_reacdiff1d": partial(
        pdebench_tensor, file="1D/ReactionDiffusion/Train/ReacDiff_Nu{}_Rho{}.hdf5", names=["Nu", "rho"]
    ),
    "pdebench_cfd1d": partial(
        pdebench_cfd,
        files=[f"{CFD_1D}Rand_Eta{v}_Zeta{v}_periodic_Train.hdf5" for v in ("0.01", "0.1", "1.e-8")],
        dim=1,
        boundary="periodic",
    ),
    "pdebench_cfd1d_shock": partial(
        pdebench_cfd, files=[f"{CFD_1D}Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5"], dim=1, boundary="open"
    ),
    "pdebench_cfd1d_trans": partial(
        pdebench_cfd, files=[f"{CFD_1D}Rand_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5"], dim=1, boundary="open"
    ),
    "pdebench_cfd2d": partial(
        pdebench_cfd,
        files=[
            f"{CFD_2D}{kind}/2D_CFD_{kind}_M{mach}_Eta1e-08_Zeta1e-08_periodic_512_Train.hdf5"
            for kind in ("Rand", "Turb")
            for mach in ("0.1", "1.0")
        ],
        dim=2,
        boundary="periodic",
    ),
    "pdebench_cfd2d_128": partial(
        pdebench_cfd,
        files=[f"{CFD_2D}Rand/2D_CFD_Rand_M1.0_Eta{v}_Zeta{v}_periodic_128_Train.hdf5" for v in ("0.01", "0.1")],
        dim=2,
        boundary="periodic",
    ),
    "pdebench_cfd3d": partial(
        pdebench_cfd, files=[f"{CFD_3D}Rand_M1.0_Eta1e-08_Zeta1e-08_periodic_Train.hdf5"], dim=3, boundary="periodic"
    ),
    "pdebench_cfd3d_turb": partial(
        pdebench_cfd, files=[f"{CFD_3D}Turb_M1.0_Eta1e-08_Zeta1e-08_periodic_Train.hdf5"], dim=3, boundary="periodic"
    ),
    "pdebench_diffreact2d": partial(
        pdebench_groups, file="2D/diffusion-reaction/2D_diff-react_NA_NA.h5", fields=["u", "v"], dim=2, boundary="wall"
    ),
    "pdebench_diffsorp1d": partial(
        pdebench_groups, file="1D/diffusion-sorption/1D_diff-sorp_NA_NA.h5", fields=["u"], dim=1, boundary="wall"
    ),
    "pdebench_swe2d": partial(
        pdebench_groups, file="2D/shallow-water/2D_rdb_NA_NA.h5", fields=["h"], dim=2, boundary="open"
    ),
    "pdebench_ns2d": pdebench_incompressible,
    **{
        f"pdegym_ns_{name.lower()}": partial(
            pdegym, folder=f"NS-{name}", variable="velocity", channels=VELOCITY, num_channels=3, dt=0.05
        )
        for name in ("Sines", "Gauss", "PwC", "BB", "SVS")
    },
    "pdegym_ns_sl": partial(
        pdegym, folder="NS-SL", variable="velocity", channels=VELOCITY, num_channels=2, dt=0.05, transposed=True
    ),
    "pdegym_fns_kf": partial(
        pdegym, folder="FNS-KF", variable="solution", channels=VELOCITY, num_channels=2, dt=0.05
    ),
    **{
        f"pdegym_ce_{name.lower()}": partial(
            pdegym, folder=f"CE-{name}", variable="data", channels=EULER, num_channels=5, dt=0.05
        )
        for name in ("RP", "CRP", "KH", "Gauss", "RPUI")
    },
    "pdegym_ce_rm": partial(
        pdegym, folder="CE-RM", variable="solution", channels=EULER, num_channels=5, dt=0.1, held_out=(100, 130)
    ),
    "pdegym_gce_rt": partial(
        pdegym, folder="GCE-RT", variable="solution", channels=EULER, num_channels=6, dt=0.5, held_out=(100, 130)
    ),
    "pdegym_ace": partial(
        pdegym, folder="ACE", variable="solution", channels={}, num_channels=1, dt=1.0526e-05, held_out=(60, 240),
        boundary="open",
    ),
    "pdegym_wave_layer": partial(pdegym_wave, name="Wave-Layer", dt=0.05),
    "pdegym_wave_gauss": partial(pdegym_wave, name="Wave-Gauss", dt=0.06667),
    "well_acoustic_scattering_discontinuous": partial(well, folder="acoustic_scattering_discontinuous", **ACOUSTIC),
    "well_acoustic_scattering_inclusions": partial(well, folder="acoustic_scattering_inclusions", **ACOUSTIC),
    "well_acoustic_scattering_maze": partial(well, folder="acoustic_scattering_maze", **ACOUSTIC),
    "well_active_matter": partial(well, folder="active_matter", axes="x y", fields="concentration velocity"),
    "well_convective_envelope_rsg": partial(
        well, folder="convective_envelope_rsg", axes="r theta phi", fields="energy density pressure velocity"
    ),
    **{
        f"well_euler_multi_quadrants_{kind.lower()}": partial(
            well, folder=f"euler_multi_quadrants_{kind}", axes="x y", fields="density energy pressure momentum",
            vectors="momentum",
        )
        for kind in ("openBC", "periodicBC")
    },
    "well_gray_scott_reaction_diffusion": partial(
        well, folder="gray_scott_reaction_diffusion", axes="x y", fields="A B"
    ),
    "well_helmholtz_staircase": partial(
        well, folder="helmholtz_staircase", axes="x y", fields="pressure_re pressure_im mask", constant="mask", dt=0.02
    ),
    "well_mhd_64": partial(
        well, folder="MHD_64", axes="x y z", fields=PLASMA, vectors="magnetic_field velocity"
    ),
    "well_mhd_256": partial(
        well, folder="MHD_256", axes="x y z", fields=PLASMA, vectors="magnetic_field velocity"
    ),
    "well_planetswe": partial(well, folder="planetswe", axes="theta phi", fields="height velocity"),
    "well_post_neutron_star_merger": partial(
        well, folder="post_neutron_star_merger", axes="log_r theta phi",
        fields="density electron_fraction entropy temperature magnetic_field velocity",
        vectors="magnetic_field velocity",
    ),
    "well_rayleigh_benard": partial(well, folder="rayleigh_benard", axes="x y", fields="buoyancy pressure velocity"),
    "well_rayleigh_taylor_instability": partial(
        well, folder="rayleigh_taylor_instability", axes="x y z", fields="density velocity"
    ),
    "well_shear_flow": partial(well, folder="shear_flow", axes="x y", fields="tracer pressure velocity"),
    "well_supernova_explosion_64": partial(well, folder="supernova_explosion_64", axes="x y z", fields=NOVA),
    "well_supernova_explosion_128": partial(well, folder="supernova_explosion_128", axes="x y z", fields=NOVA),
    "well_turbulence_gravity_cooling": partial(well, folder="turbulence_gravity_cooling", axes="x y z", fields=NOVA),
    "well_turbulent_radiative_layer_2d": partial(
        well, folder="turbulent_radiative_layer_2D", axes="x y", fields=LAYER
    ),
    "well_turbulent_radiative_layer_3d": partial(
        well, folder="turbulent_radiative_layer_3D", axes="x y z", fields=LAYER
    ),
    "well_viscoelastic_instability": partial(
        well, folder="viscoelastic_instability", axes="x y", fields=CHANNEL_FLOW
    ),
    "well_viscoelastic_instability_v2": partial(
        well, folder="viscoelastic_instability_v2", axes="x y", fields=CHANNEL_FLOW
    ),
}  # fmt: skip
