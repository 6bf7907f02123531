import json
import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkd_tf.storage import durable
from qkd_tf.storage.durable import DamageError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_content_of_before(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.txt"
    durable.write_whole(path, "one")

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, moment, die)
        with pytest.raises(Killed):
            durable.write_whole(path, "two")
    assert path.read_text() == "one"
    durable.write_whole(path, b"two")
    assert contents(tmp_path) == {"a.txt": b"two"}


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, original=original: (done.append(name), original(*a)))
    durable.write_whole(tmp_path / "a.txt", "one")
    assert done == ["fsync", "replace", "fsync"]


@settings(max_examples=15)
@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON))
def test_json_comes_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    durable.write_json(path, value)
    assert durable.read_json(path) == value


@given(st.data())
def test_json_of_which_a_byte_is_changed_is_damage_or_means_the_same(tmp_path_factory, data):
    path, value = tmp_path_factory.getbasetemp() / "changed.json", {"epoch": 3, "loss": [0.5, -1.25e-7], "name": "x"}
    durable.write_json(path, value)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert durable.read_json(path) == value  # white space
    except DamageError as damage:
        assert str(path) in str(damage) and "\n" not in str(damage)


@pytest.mark.parametrize("content", ["", "[1]", "3", "null", '{"a": 1}', '{"a": 1, "sha256": 5}', "[" * 100_000])
def test_foreign_json_is_damage(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DamageError, match="a.json"):
        durable.read_json(tmp_path / "a.json")


def fill(folder, **files):
    for name, content in files.items():
        (folder / name).write_text(content)


def test_folder_takes_the_place_of_the_old_one_with_a_manifest(tmp_path):
    for content in ("one", "two"):
        with durable.whole_folder(tmp_path / "f") as part:
            fill(part, a=content)
        durable.check(tmp_path / "f")
    assert (tmp_path / "f" / "a").read_text() == "two"
    assert {path.name for path in tmp_path.iterdir()} == {"f"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Killed()])
def test_error_while_filling_leaves_the_old_folder_alone(tmp_path, error):
    with durable.whole_folder(tmp_path / "f") as part:
        fill(part, a="one")
    before = contents(tmp_path)
    with pytest.raises(type(error)), durable.whole_folder(tmp_path / "f") as part:
        fill(part, a="two", b="three")
        raise error
    assert contents(tmp_path) == before


def test_a_full_disk_is_told_with_the_file_that_has_no_room(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"^{tmp_path / 'a.txt'} cannot be written: No space left on device$"):
        durable.write_whole(tmp_path / "a.txt", "one")
    with pytest.raises(OSError, match=f"^{tmp_path / 'f'} cannot be written: No space left on device$"):
        with durable.whole_folder(tmp_path / "f") as part:
            fill(part, a="one")


def test_what_a_kill_left_behind_is_not_in_the_next_folder(tmp_path):
    for name in ("f.part", "f.old"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, b="left")
    with durable.whole_folder(tmp_path / "f") as part:
        fill(part, a="one")
    assert set(contents(tmp_path)) == {"f/a", "f/manifest.json"}


SPOILS = {
    "lacks b": lambda folder: (folder / "b").unlink(),
    "b was changed": lambda folder: (folder / "b").write_text("twO"),
    "has no manifest.json": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json is not the JSON object": lambda folder: (folder / "manifest.json").write_text("{"),
    "manifest.json lists no files": lambda folder: durable.write_json(folder / "manifest.json", {"files": {}}),
}


@pytest.mark.parametrize("told", SPOILS)
def test_what_is_damaged_is_told(tmp_path, told):
    with durable.whole_folder(tmp_path / "f") as part:
        fill(part, a="one", b="two")
    SPOILS[told](tmp_path / "f")
    with pytest.raises(DamageError, match=told):
        durable.check(tmp_path / "f")


def test_files_that_came_later_do_no_harm(tmp_path):
    with durable.whole_folder(tmp_path / "f") as part:
        fill(part, a="one")
    fill(tmp_path / "f", notes="mine")
    durable.check(tmp_path / "f")


def test_digest_is_that_of_sha256sum(tmp_path):
    pathlib.Path(tmp_path / "a").write_bytes(b"abc")
    assert durable.digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    durable.seal(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["files"] == {"a": durable.digest(tmp_path / "a")}
