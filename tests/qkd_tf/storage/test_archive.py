"""Arrays of strangers: bombs, links and lies are refused before anything is allocated."""

import io
import tracemalloc
import warnings
import zipfile

import h5py
import numpy as np
import pytest

from qkd_tf.storage import archive


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def declaring(shape, dtype="<f4", body=b"\0" * 16) -> bytes:
    """An .npy whose header says what it likes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + body


@pytest.fixture
def packed(tmp_path):
    """packed(members): an .npz of these members, by name, which may be there twice."""

    def pack(*members: tuple[str, bytes]):
        with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, content in members:
                file.writestr(name, content)
        return tmp_path / "a.npz"

    return pack


def test_arrays_come_back_as_they_were_saved(tmp_path):
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "b/c": np.float32([1.5]),
        "none": np.zeros((0, 2), np.int8),
        "f": np.True_,
    }
    arrays["fortran"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        loaded = archive.load_npz(tmp_path / "a.npz")
        assert loaded.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_saved_whatever_their_names_are(tmp_path, compressed):
    """`np.savez` takes "file" for its own parameter: at 6352718 a layer of that name was a traceback after training."""
    names = ("file", "args", "kwds", "a/b", "self", "größe", "with space", "arr_0", "path", "arrays", "compressed")
    arrays = {name: np.full((2, 3), number, np.float32) for number, name in enumerate(names)}
    arrays |= {
        "scalar": np.int8(-3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "none": np.zeros((0, 2)),
    }
    archive.save_npz(tmp_path / "a.npz", arrays, compressed)
    loaded = archive.load_npz(tmp_path / "a.npz")
    assert list(loaded) == list(arrays)
    with np.load(tmp_path / "a.npz") as numpys:
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
            np.testing.assert_array_equal(numpys[name], array)
            assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
    kinds = {info.compress_type for info in zipfile.ZipFile(tmp_path / "a.npz").infolist()}
    assert kinds == {zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED}


def test_arrays_are_read_one_at_a_time(tmp_path):
    size = 1 << 20
    arrays = {f"{row}/{name}": np.full(size, 3 * row + name, np.int8) for row in range(3) for name in range(3)}
    archive.save_npz(tmp_path / "a.npz", arrays, compressed=True)
    tracemalloc.start()
    rows = archive.open_npz(tmp_path / "a.npz").rows()
    assert {row: list(tensors) for row, tensors in rows.items()} == {str(row): ["0", "1", "2"] for row in range(3)}
    assert [int(rows[row][name][-1]) for row in rows for name in rows[row]] == list(range(9))
    assert tracemalloc.get_traced_memory()[1] < 3 * size
    tracemalloc.stop()


def test_objects_are_never_saved(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        archive.save_npz(tmp_path / "a.npz", {"object": np.array([{}])})


@pytest.mark.parametrize(
    "members, message",
    [
        ([("a.npy", declaring((1 << 40,)))], "declares float32 of shape"),
        ([("a.npy", declaring((1 << 32, 1 << 32)))], "declares float32 of shape"),  # wraps to 0 in 64 bits
        ([("a.npy", declaring((-1, 4)))], "declares float32 of shape"),
        ([("a.npy", declaring((2,)))], "declares float32 of shape"),
        ([("a.npy", declaring((4,), "|O"))], "holds object, not numbers"),
        ([("a.npy", declaring((4,), "<U1"))], "not numbers"),
        ([("a.npy", npy(np.zeros(2))), ("a.npy", npy(np.ones(2)))], "'a.npy' is in it twice"),
        ([("../a.npy", npy(np.zeros(2)))], "leads out of its folder"),
        ([("/tmp/a.npy", npy(np.zeros(2)))], "leads out of its folder"),
        ([("a.pkl", b"...")], "is not an array"),
        ([("a.npy", b"\x80\x04N.")], "EOF|magic"),
        ([("a.npy", b"\x93NUMPY\x03\x00" + b"\0" * 40)], "format"),
    ],
)
def test_hostile_archive_is_refused(packed, members, message):
    path = packed(*members)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        archive.load_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_bomb_is_refused_before_it_goes_off(packed, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    path = packed(("a.npy", npy(np.zeros(1 << 20, np.int8))))
    assert path.stat().st_size < 1 << 13
    for check in (archive.load_npz, archive.check_zip):
        with pytest.raises(ValueError, match="1,048,576 are the most that is read"):
            check(path)


def test_honest_weights_in_hdf5_pass(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["layer/kernel"] = np.zeros((3, 3))
        file.attrs["layer_names"] = ["layer"]
    archive.check_hdf5(tmp_path / "a.h5")


def link(file):
    file["kernel"] = h5py.ExternalLink("/etc/passwd", "/")


def loop(file):
    file["layer/again"] = h5py.SoftLink("/layer")


def lie_elsewhere(file):
    file.create_dataset("kernel", (4,), "i1", external=[("/etc/passwd", 0, 4)])


def be_huge(file):
    file.create_dataset("kernel", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))


def hold_objects(file):
    file.create_dataset("kernel", (2,), h5py.string_dtype())


@pytest.mark.parametrize(
    "spoil, message",
    [
        (link, "kernel in it is a link to somewhere else"),
        (loop, "layer/again in it is a link"),
        (lie_elsewhere, "kernel in it lies in another file"),
        (be_huge, "4,398,046,511,104 bytes or more"),
        (hold_objects, "kernel in it holds object, not numbers"),
    ],
)
def test_hostile_hdf5_is_refused(tmp_path, spoil, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        spoil(file)
    with pytest.raises(ValueError, match=message):
        archive.check_hdf5(tmp_path / "a.h5")


def test_first_array_without_a_number_is_named():
    arrays = {"good": np.ones(2), "whole": np.arange(2), "bad": np.float32([1, np.nan]), "worse": np.float32([-np.inf])}
    assert archive.non_finite(arrays) == "bad has NaN or infinity and 1 more"
    assert archive.non_finite({"good": np.ones(2)}) == ""


@pytest.mark.parametrize(
    "message, line", [("a\nb", "a"), ("", "ValueError"), ("\n \n b", "b"), ("x" * 900, "x" * 300 + "…")]
)
def test_messages_are_cut_to_a_line(message, line):
    assert archive.first_line(ValueError(message)) == line
