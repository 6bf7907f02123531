"""The files of zoo/ are proven, compute what they did, and are told as they are."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest

from benchmarks import zoo
from qkd_tf.experiment import ExperimentError
from tflite_export.flatbuffer.read_back import read_back

ENTRIES = sorted(path for path in zoo.ZOO.iterdir() if path.is_dir())
MOST_BYTES = 5_000_000
FILES = [(entry, target) for entry in ENTRIES for target in zoo.READERS]


def named(value):
    return getattr(value, "name", value)


@pytest.mark.parametrize("entry, target", FILES, ids=named)
def test_file_computes_its_recorded_logits_on_every_runtime(entry, target):
    recorded = json.loads((entry / "logits.json").read_text())
    found = zoo.logits(entry, target)
    assert found
    for runtime, logits in found.items():
        np.testing.assert_array_equal(logits, recorded[f"{target}.{runtime}"], err_msg=runtime)
    assert len(np.unique(next(iter(found.values())), axis=0)) > 1  # pictures that a file cannot tell apart show nothing


@pytest.mark.parametrize("entry, target", FILES, ids=named)
def test_file_is_the_one_that_was_verified(entry, target):
    verification = zoo.verification_of(entry, target)
    content = zoo.file_of(entry, target).read_bytes()
    assert verification["passed"] and not verification["failures"]
    assert verification["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert verification["file"]["bytes"] == len(content)
    ran = [row for row in verification["runtimes"].values() if "not_run" not in row]
    assert (
        {row["integer_student"]["equal_logits"] for row in ran} == {row["codes"]["equal_codes"] for row in ran} == {100}
    )
    assert verification["runtimes"][verification["judge"]]["num_images"] == verification["num_images"]


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_card_tells_what_the_verifications_say(entry):
    text = (entry / "README.md").read_text()
    for label, cells in zoo.facts(entry).items():
        assert f"| {label} | {' | '.join(cells)} |" in text
    assert re.search(r"^Initial weights: .+\. Licence: .+\.$", text, re.M)


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_flags_have_no_place_of_a_machine(entry):
    lines = (entry / "flags.txt").read_text().splitlines()
    assert lines and all(line.startswith("--") for line in lines)
    assert not [line for line in lines if "/" in line]


def test_all_files_together_are_small():
    assert sum(path.stat().st_size for path in zoo.ZOO.rglob("*") if path.is_file()) < MOST_BYTES


def test_pictures_are_the_same_everywhere():
    pictures = zoo.pictures((32, 32, 3))
    assert pictures.shape == (zoo.NUM_PICTURES, 32, 32, 3)
    assert hashlib.sha256(pictures.tobytes()).hexdigest()[:16] == "3afb5bc3ef6d05f2"


@pytest.mark.parametrize(
    "channels, told", [(1, "Input: 32 x 32 x 1 pixels, grey;"), (3, "Input: 32 x 32 x 3 pixels, RGB;")]
)
def test_card_tells_the_colours_of_the_input(monkeypatch, channels, told):
    """As `read_back` finds them: of one channel no entry is here."""

    def read(content):
        graph = read_back(content)
        pixels = graph.tensors[graph.input]
        shape = (*pixels.shape[:3], channels)
        return dataclasses.replace(
            graph, tensors=graph.tensors | {graph.input: dataclasses.replace(pixels, shape=shape)}
        )

    monkeypatch.setattr(zoo, "read_back", read)
    assert told in zoo.card(ENTRIES[0], 90.0, "none", "none")


def test_a_run_without_both_exports_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match="no accepted file for phone; run python -m tflite_export"):
        zoo.add(tmp_path, "name", "none", "none", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_logits_of_every_runtime_are_recorded(entry):
    recorded = json.loads((entry / "logits.json").read_text())
    assert recorded.keys() == {f"{target}.{name}" for target, names in zoo.READERS.items() for name in names}
