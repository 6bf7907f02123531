"""Arrays from untrusted files: only numbers, no pickles, and never more bytes than the file declares."""

import math
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

MAX_BYTES = 4 << 30  # of all arrays of a file, unpacked; the largest network of the zoo has 180 MB of weights
HEADERS = 1 << 20  # bytes left for those of a file's arrays, which have 128 each
NUMBERS = "biuf"  # kinds of dtype


class Arrays(Mapping[str, np.ndarray]):
    """Arrays of an .npz by name; each is read on access and not kept. `open_npz` opens one."""

    def __init__(self, archive: zipfile.ZipFile, members: Mapping[str, str]):
        self._archive, self._members = archive, members

    def __getitem__(self, name: str) -> np.ndarray:
        with self._archive.open(self._members[name]) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def rows(self) -> dict[str, "Arrays"]:
        """The arrays named "row/name", by row, then by name."""
        rows: dict[str, dict[str, str]] = {}
        for path, member in self._members.items():
            row, _, name = path.partition("/")
            rows.setdefault(row, {})[name] = member
        return {row: Arrays(self._archive, members) for row, members in rows.items()}


def open_npz(path: pathlib.Path, kinds: str = NUMBERS) -> Arrays:
    """The arrays of an .npz by name, checked and not yet read.

    Args:
      kinds: allowed kinds of dtype; Python objects are never among them.

    Raises:
      ValueError: not an .npz, a name occurs twice, an array holds anything but numbers, its header declares another
        size than it has, or all take more than MAX_BYTES. This is checked before anything is allocated.
    """
    archive = zipfile.ZipFile(path)
    _check_members(archive)
    for name in archive.namelist():
        if not name.endswith(".npy"):
            raise ValueError(f"{name!r} in it is not an array")
        _check_header(archive, name, kinds)
    return Arrays(archive, {name.removesuffix(".npy"): name for name in archive.namelist()})


def load_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of `open_npz`."""
    return dict(open_npz(path))


def holds(num_bytes: int) -> bool:
    """Whether `load_npz` reads an .npz whose arrays have this many bytes."""
    return num_bytes + HEADERS <= MAX_BYTES


def save_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray], compressed: bool = False) -> None:
    """Writes arrays to an .npz under any names: `np.savez` cannot store arrays called file or args."""
    compression = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    # Level 1 takes a fourth of the default's time, for 5 % more bytes of integers.
    with zipfile.ZipFile(path, "w", compression, allowZip64=True, compresslevel=1) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def non_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """Which arrays have NaN or infinity, in words; "" for none."""
    broken = [name for name, values in arrays.items() if values.dtype.kind == "f" and not np.isfinite(values).all()]
    return f"{broken[0]} has NaN or infinity" + f" and {len(broken) - 1} more" * (len(broken) > 1) if broken else ""


def check_zip(path: pathlib.Path) -> None:
    """Raises ValueError if members occur twice, lie outside the archive, or have more than MAX_BYTES in all."""
    with zipfile.ZipFile(path) as archive:
        _check_members(archive)


def check_hdf5(file) -> int:
    """Checks an HDF5 file, given as a path or an open file, before any array is read.

    Returns:
      The number of values in its arrays.

    Raises:
      ValueError: it links to other files or stores data in them, has arrays of Python objects, or more than MAX_BYTES
        in all.
    """
    size = count = 0

    # h5py's walks stop at the first that returns something; exceptions do not get through all of them.
    def other_place(name, link):
        return None if isinstance(link, h5py.HardLink) else f"{name} in it is a link to somewhere else"

    def no_numbers(name, item):
        nonlocal size, count
        if isinstance(item, h5py.Dataset):
            if item.dtype.hasobject:
                return f"{name} in it holds {item.dtype}, not numbers"
            if item.external or item.is_virtual:
                return f"{name} in it lies in another file"
            numbers = math.prod(item.shape or (0,))
            count, size = count + numbers, size + numbers * item.dtype.itemsize
        return None

    with h5py.File(file) as opened:
        if reason := opened.visititems_links(other_place) or opened.visititems(no_numbers):
            raise ValueError(reason)
    _check_size(size)
    return count


def first_line(error: BaseException, width: int = 300) -> str:
    """An exception's message on one line of bounded length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= width else f"{line[:width]}…"


def _check_members(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is in it twice")
    for name in names:
        parts = pathlib.PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"{name!r} in it leads out of its folder")
    _check_size(sum(info.file_size for info in archive.infolist()))


def _check_header(archive: zipfile.ZipFile, name: str, kinds: str) -> None:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name!r} in it has format {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        if dtype.kind not in kinds:
            raise ValueError(f"{name!r} in it holds {dtype}, not numbers (pickles are never read)")
        declared, present = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - member.tell()
        if min(shape, default=0) < 0 or declared != present:
            raise ValueError(f"{name!r} in it declares {dtype} of shape {shape}, and has {present} bytes")


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise ValueError(f"its arrays have {num_bytes:,} bytes or more; {MAX_BYTES:,} are the most that is read")
