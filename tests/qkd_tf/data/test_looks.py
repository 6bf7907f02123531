import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from qkd_tf import data
from qkd_tf.data import looks
from qkd_tf.experiment import DataSpec, ExperimentError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache folder; files of this moment are old enough to be known again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(looks, "SETTLED", -60.0)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were read since it was cleared."""
    names, original = [], looks._look

    def look(path):
        names.append(os.path.basename(path))
        return original(path)

    monkeypatch.setattr(looks, "_look", look)
    return names


def write(path, value=128, size=(16, 12), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path, **options)


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.fixture
def root(tmp_path):
    """12 pictures of train, 4 of test, of several sizes, one of them turned."""
    for split, number in (("train", 6), ("test", 2)):
        for name, first in (("ant", 0), ("bee", 100)):
            for value in range(first, first + number):
                write(tmp_path / "set" / split / name / f"{split}{value:03d}.png", value, (16 + value % 2, 12))
    write(tmp_path / "set" / "train" / "ant" / "train005.png", 5, exif=TURNED)
    return tmp_path / "set"


def scanned(root, **changes):
    fields = {"batch_size": 4, "validation_fraction": 0.25, "image_size": 8, **changes}
    source = data.open_source(DataSpec(f"folder:{root}", **fields))
    return source.scan(source)


def told(source):
    return source.content_sha256, source.notes, source.train.num_examples, source.image_shape


def memories(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


def test_a_look_that_is_stopped_is_gone_on_with(root, decoded, monkeypatch):
    paths, look = sorted(map(str, (root / "train").rglob("*.png"))), looks._look

    def stopped(path):
        if path == paths[5]:
            raise KeyboardInterrupt
        return look(path)

    monkeypatch.setattr(looks, "_look", stopped)
    with pytest.raises(KeyboardInterrupt):
        looks.look(root, paths)
    monkeypatch.setattr(looks, "_look", look)
    decoded.clear()
    rows, problems = looks.look(root, paths)
    assert set(decoded) == {os.path.basename(path) for path in paths[5:]} and not problems
    assert rows["size"].all()


def test_second_start_reads_no_picture_and_tells_the_same(root, decoded):
    first = scanned(root)
    assert len(decoded) == 16
    decoded.clear()
    again = scanned(root)
    assert decoded == [] and told(again) == told(first)
    assert any("EXIF" in note for note in again.notes) and any("16 of 16 pictures" in note for note in again.notes)


@pytest.mark.parametrize("changes", [{"image_size": 4}, {"image_channels": 1}, {"validation_fraction": 0.5, "seed": 3}])
def test_memory_is_of_the_files_and_not_of_the_settings(root, decoded, changes):
    scanned(root)
    decoded.clear()
    scanned(root, **changes)
    assert decoded == []


def write_again(path):
    stat = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = {
    "one more": lambda root: write(root / "test" / "bee" / "new.png"),
    "another": lambda root: write(root / "test" / "bee" / "test100.png", 7, (16, 30)),
    "written again, size and time put back": lambda root: write_again(root / "test" / "bee" / "test100.png"),
    "renamed": lambda root: (root / "test" / "bee" / "test100.png").rename(root / "test" / "bee" / "new.png"),
    "moved": lambda root: (root / "test" / "bee" / "test100.png").rename(root / "test" / "ant" / "test100.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_read_and_nothing_else_and_the_content_is_that_of_a_first_look(root, cache, decoded, change):
    scanned(root)
    decoded.clear()
    CHANGES[change](root)
    found = scanned(root)
    assert len(decoded) == 1
    shutil.rmtree(cache)
    assert told(scanned(root)) == told(found)


def test_broken_pictures_are_told_again_and_looked_at_again(root, decoded):
    (root / "test" / "bee" / "broken.jpg").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ExperimentError, match=r"1 of 17 images of .* cannot be decoded: test/bee/broken.jpg"):
            scanned(root)
    assert len(decoded) == 18  # the 16 sound ones once, although nothing came of the first start
    assert len(scanned(root, skip_broken_images=True).content_sha256) == 64


def test_a_trial_does_not_forget_the_other_pictures(root, decoded):
    scanned(root)
    write(root / "train" / "ant" / "new.png")
    scanned(root, max_eval_images=1)
    decoded.clear()
    scanned(root)
    assert decoded == []


def test_files_that_are_gone_are_forgotten_at_last(root, cache):
    sizes = []
    for turn in range(4):
        for path in list(root.rglob("*.png")):
            path.rename(path.with_name(f"{turn}{path.name[-7:]}"))
        scanned(root)
        (memory,) = memories(cache)
        sizes.append(memory.stat().st_size)
    assert sizes[1] == sizes[2] == sizes[3]


def test_a_file_that_may_change_again_within_its_tick_is_not_remembered(root, monkeypatch, decoded):
    monkeypatch.setattr(looks, "SETTLED", 60.0)
    scanned(root)
    scanned(root)
    assert len(decoded) == 32


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "one bit": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
    "longer": lambda content: content + b"\0",
    "strange": lambda content: b"not a memory",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_memory_is_made_anew(root, cache, decoded, damage):
    first = scanned(root)
    (memory,) = memories(cache)
    whole = memory.read_bytes()
    memory.write_bytes(DAMAGES[damage](whole))
    decoded.clear()
    assert told(scanned(root)) == told(first) and len(decoded) == 16
    assert memory.read_bytes() == whole


def test_memory_of_another_version_is_not_read(root, monkeypatch, decoded):
    scanned(root)
    monkeypatch.setattr(looks, "VERSION", b"another")
    scanned(root)
    assert len(decoded) == 32


@pytest.mark.parametrize("kind", ["a file is there", "relative", "a folder of its name"])
def test_without_a_cache_folder_nothing_is_remembered_and_nothing_said(root, cache, monkeypatch, capsys, kind, decoded):
    monkeypatch.chdir(root.parent)
    if kind == "a file is there":
        cache.write_text("x")
    if kind == "relative":
        monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    if kind == "a folder of its name":
        (looks._memory(root) / "x").mkdir(parents=True)
    assert told(scanned(root)) == told(scanned(root)) and len(decoded) == 32
    assert kind == "a folder of its name" or not any(path.is_file() for path in cache.rglob("*"))
    assert "rror" not in capsys.readouterr().err


def test_nothing_is_written_beside_the_pictures_and_a_link_to_them_knows_them(root, cache, tmp_path, decoded):
    before = sorted(root.rglob("*"))
    scanned(root)
    assert sorted(root.rglob("*")) == before and len(memories(cache)) == 1
    (tmp_path / "link").symlink_to(root)
    decoded.clear()
    scanned(tmp_path / "link")
    assert decoded == []


def test_memory_is_written_between_chunks(root, monkeypatch, decoded):
    monkeypatch.setattr(looks, "CHUNK", 5)
    original = looks._keep
    kept = []

    def keep(*given):
        original(*given)
        kept.append(given)
        if len(kept) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(looks, "_keep", keep)
    with pytest.raises(KeyboardInterrupt):
        scanned(root)
    decoded.clear()
    scanned(root)
    assert len(decoded) == 6 and len(kept) == 4


@pytest.mark.parametrize("path, root", [("a/train/x", "a"), ("train/x", "."), ("/train/x", "/"), ("/a/train/x", "/a")])
def test_paths_are_told_from_their_root(path, root):
    assert looks.within(path, pathlib.Path(root)) == "train/x"


def test_found_are_the_indices_of_keys_in_any_order():
    rng = np.random.default_rng(0)
    keys = np.array([rng.bytes(16) for _ in range(200)], looks.ROW["key"])
    known = np.zeros(100, looks.ROW)
    known["key"] = np.sort(keys[:100])
    shuffled = rng.permutation(keys)
    found = looks._found(known, shuffled)
    assert np.array_equal(found >= 0, np.isin(shuffled, keys[:100]))
    assert np.array_equal(known["key"][found[found >= 0]], shuffled[found >= 0])
    assert (looks._found(known, np.zeros(2, looks.ROW["key"])) == -1).all()
