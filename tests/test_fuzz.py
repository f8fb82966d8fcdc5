"""Whatever stands in a file or among the options: the right values, or one error that says where; never a crash."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import DAMAGES, LAYOUTS, Outcome, _Cases, fuzz
from tests.fuzz_options import READERS, run
from tests.layout_files import close_files, closed


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield from closed()


@pytest.mark.parametrize("reader", READERS)
def test_options_take_what_numpy_takes_or_are_refused(reader: str) -> None:
    with tempfile.TemporaryDirectory() as folder:

        @settings(max_examples=100 if reader != "xarray" else 40, derandomize=True, deadline=None, database=None)
        @given(st.integers(0, 10**9))
        def check(seed: int) -> None:
            kind, text = run(Path(folder), reader, random.Random(seed))
            close_files()
            assert kind in ("right", "refused"), text

        check()


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """Twelve of each layout and kind of damage, in a process of their own."""
    return list(fuzz(12 * len(LAYOUTS) * len(DAMAGES), seed=0, limit=8))


def test_damaged_files_hardly_ever_crash_the_process_or_hang_it(outcomes: list[Outcome]) -> None:
    """HDF5 2.0 reads a heap of texts with an entry of length 0 for ever (one case in some thousands), and decoders of
    chunks read beyond a chunk that was cut off: that is theirs, so it is bounded here and not forbidden."""
    lost = [outcome for outcome in outcomes if outcome.kind in ("crash", "hang")]
    assert len(lost) <= 0.01 * len(outcomes), lost


def test_errors_of_damaged_files_are_of_one_kind_and_name_the_file(outcomes: list[Outcome]) -> None:
    assert not [outcome for outcome in outcomes if outcome.kind == "unclear"]
    assert all(len(outcome.text) < 1500 and outcome.text.count("\n") < 3 for outcome in outcomes)


def test_files_that_were_cut_off_are_refused(outcomes: list[Outcome]) -> None:
    """Of a Zarr store with Blosc, a chunk that was cut off can be decompressed into other numbers."""
    cut = [outcome for outcome in outcomes if outcome.damage == "truncate" and outcome.layout != "Zarr 2"]
    assert cut
    assert {outcome.kind for outcome in cut} == {"refused"}


def test_few_damages_pass_unseen(outcomes: list[Outcome]) -> None:
    """Outside of the numbers: an index of chunks or of groups that has lost an entry, a bit of a type of number."""
    seen = [outcome for outcome in outcomes if outcome.damage in ("flip", "overwrite")]
    other = [outcome for outcome in seen if outcome.kind == "other"]
    assert len(other) <= 0.05 * len(seen), other


def test_no_flip_in_numbers_with_a_checksum_passes(tmp_path: Path) -> None:
    path = LAYOUTS["The Well"].write(tmp_path) / "data" / "train" / "a.hdf5"
    expected = LAYOUTS["The Well"].read(tmp_path / "well").read(1, 0, 4)
    with h5py.File(path) as file:
        chunks = [file["t1_fields/velocity"].id.get_chunk_info(number) for number in range(12)]
    chunks = [chunk for chunk in chunks if chunk.chunk_offset[0] == 1]
    raw = path.read_bytes()
    for chunk in chunks:
        for place in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 23):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 16]) + raw[place + 1 :])
            adapter = LAYOUTS["The Well"].read(tmp_path / "well")
            with pytest.raises(ValueError, match=r"a\.hdf5: t1_fields/velocity: expected frames 0 to 4 of its traj"):
                adapter.read(1, 0, 4)
            adapter.read(0, 0, 4)
            adapter.close()
    path.write_bytes(raw)
    np.testing.assert_array_equal(LAYOUTS["The Well"].read(tmp_path / "well").read(1, 0, 4), expected)


def test_cases_are_the_same_for_the_same_seed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cases = _Cases(Path(folder))
        for layout in ("The Well", "PDEgym"):
            kinds = [[cases.run(layout, damage, case)[0] for case in range(3) for damage in DAMAGES] for _ in range(2)]
            assert kinds[0] == kinds[1]
