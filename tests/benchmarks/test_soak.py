"""A sample of `make soak`: the real campaign, with a shorter run and two kills."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import damage
from qkd_tf.storage import durable

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    work = tmp_path_factory.mktemp("soak")
    command = [sys.executable, "-m", "benchmarks.soak", "--sample", "--parts=spoilt_files,kills", "--kills=2"]
    command.append(f"--work={work}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return work


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_the_one_that_was_not_in_another_folder(campaign):
    rows = {row["what"]: row for row in json.loads((campaign / "parts.json").read_text())["kills"]["rows"]}
    assert rows["SIGKILL"]["tried"] + rows["SIGTERM"]["tried"] >= 2
    assert rows["finished with the same bits"]["held"] == rows["finished with the same bits"]["tried"] >= 1
    for name in ("handoff/weights.npz", "export/model.tflite"):  # the sums are the campaign's; these are the bytes
        assert (campaign / "killed" / name).read_bytes() == (campaign / "reference" / name).read_bytes()


@pytest.mark.slow
def test_every_spoilt_file_is_noticed(campaign):
    rows = json.loads((campaign / "parts.json").read_text())["spoilt_files"]["rows"]
    assert sum(row["tried"] for row in rows) > 100
    assert [row for row in rows if row["held"] != row["tried"]] == []


def look(folder):
    durable.check(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != durable.MANIFEST}


def test_a_check_that_sees_nothing_is_found_out(tmp_path):
    """The campaign itself can fail."""
    folder = tmp_path / "folder"
    with durable.whole_folder(folder) as part:
        (part / "a").write_bytes(bytes(range(256)))
    rng, scratch = np.random.default_rng(0), tmp_path / "scratch"
    for check, held in ((look, True), (lambda spoilt: (spoilt / "a").read_bytes()[:0], False)):
        expected = check(folder) if held else b"the content"
        got = [
            damage.noticed(lambda spoilt=spoilt, check=check: check(spoilt), expected, (durable.DamageError,))
            for _, spoilt in damage.cases(folder, ["a", durable.MANIFEST], 2, rng, scratch)
            if (spoilt / "a").exists() or held
        ]
        assert len(got) >= 20 and set(got) == {held}
