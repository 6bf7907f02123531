"""On ARM64, emulated, every operator, width and storage of weights gives the integers that were predicted.

`make arm64` sets the processors up and runs these; what it measures goes into the table of docs/fidelity.md.
"""

import contextlib
import itertools
import json
import os
import platform
import sys

import pytest

from benchmarks import arm64
from benchmarks.arm64 import ROWS, Rows, as_predicted, ask_all, first_images, summary, table, write
from benchmarks.processor import PROCESSORS, Processor, absence, emulated
from qkd_tf.experiment import QuantizationSpec
from tflite_export.rebuilding.rebuild import rebuild


def on_arm64(test):
    return pytest.mark.arm64(pytest.mark.skipif(absence() is not None, reason=str(absence()))(test))


@pytest.fixture(scope="module")
def ask():
    """ask(subject, graph, handoff): the rows that are not as predicted, of all processors, storages and kernels."""
    rows = Rows(ROWS)
    with contextlib.ExitStack() as stack:
        processors = {name: stack.enter_context(emulated(name)) for name in PROCESSORS}

        def ask(subject, graph, handoff):
            found = ask_all(subject, graph, handoff, processors, rows)
            assert len(found) >= 2 * len(processors)
            return [row for row in found if not as_predicted(row)]

        yield ask


@on_arm64
def test_every_operator_computes_what_was_predicted(exported, ask):
    assert ask(f"operators/{exported.name}", exported.graph, exported.handoff) == []


@on_arm64
@pytest.mark.parametrize("weight_bits, activation_bits", itertools.product(range(2, 9), repeat=2))
def test_every_pair_of_widths_computes_what_was_predicted(everything, make_handoff, ask, weight_bits, activation_bits):
    ends = {"first_layer_bits": weight_bits, "last_layer_bits": weight_bits}
    handoff = make_handoff(everything, QuantizationSpec(weight_bits, activation_bits, **ends))
    assert ask(f"widths/w{weight_bits}a{activation_bits}", rebuild(handoff), handoff) == []


def test_rows_are_measured_once_for_each_file_and_prediction(residual, tmp_path):
    """By LiteRT of this machine, in another process."""
    path = tmp_path / "rows.jsonl"
    with Processor([sys.executable], dict(os.environ), platform.machine()) as here:
        rows = ask_all("group/residual", residual.graph, residual.handoff, {"max": here}, Rows(path))
    assert [(row["storage"], row["kernels"]) for row in rows] == [
        *(("int8", "default"), ("int8", "reference")),
        *(("int4", "default"), ("int4", "reference")),
        *(("int4_all", "default"), ("int4_all", "reference")),
    ]
    assert all(map(as_predicted, rows))
    path.write_text(path.read_text() + '\n{"subject": "group/cut sh')
    again, never = Rows(path), Processor(["no such program"], {}, platform.machine())
    assert ask_all("group/residual", residual.graph, residual.handoff, {"max": never}, again) == rows == list(again)
    key = {name: rows[0][name] for name in arm64.KEY}
    assert again.of(key, "another", lambda: {"not_run": "why"}) == {**key, "sha256": "another", "not_run": "why"}
    assert len(list(Rows(path))) == len(rows)


def test_first_images_of_a_handoff_are_asked_alone(residual, tmp_path, monkeypatch):
    monkeypatch.setattr(arm64, "PIXELS", 3 * 8 * 8)
    handoff = first_images(residual.handoff)
    assert len(handoff.test_images) == len(handoff.test_labels) == 3
    with Processor([sys.executable], dict(os.environ), platform.machine()) as here:
        rows = ask_all("residual", residual.graph, handoff, {"max": here}, Rows(tmp_path / "rows.jsonl"))
    assert {(row["num_images"], as_predicted(row)) for row in rows} == {(3, True)}


def test_summary_and_table_name_what_is_not_as_predicted(tmp_path):
    equal = {**dict.fromkeys(arm64.SHARES, 100.0), "first_different": None, "max_step_error": 0}
    different = {**equal, "equal_integers": 99.875, "first_different": "conv", "max_step_error": 2}
    found = {"g/a": equal, "g/b": different, "g/c": {"not_run": "it ended"}}
    rows = Rows(tmp_path / "rows.jsonl")
    for subject, numbers in found.items():
        key = {"subject": subject, "storage": "int4", "kernels": "default", "processor": "cortex-a76"}
        rows.of(key, "sha", lambda numbers=numbers: numbers)
    write(rows, tmp_path / "results")
    (row,) = json.loads((tmp_path / "results" / "g.json").read_text())["rows"]
    assert (row["files"], row["as_predicted"]) == (3, 1) and [row] == summary(list(rows))
    header, _, line, _, *others = table(tmp_path / "results")
    assert header.count("|") == line.count("|") and line == "| g | int4 | default | - | 1 of 3 | - | - |"
    assert others == [
        "* g/b, int4, default kernels, cortex-a76: conv is the first that differs, by up to 2; 99.88 % equal",
        "* g/c, int4, default kernels, cortex-a76: it ended",
    ]


def test_table_stands_in_the_docs():
    page = (arm64.RESULTS.parents[1] / "docs" / "fidelity.md").read_text()
    assert "\n".join(table()) in page
