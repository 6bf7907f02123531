"""Flash and RAM of a bundle: sums of the table's rows. `test_micro_boards.py` holds them against linked programs."""

import pytest

from tflite_export.bundles.firmware import BUILDS, CODE_BYTES, INTERPRETER, STACK_BYTES, rows
from tflite_export.flatbuffer.operators import OPERATORS


def test_every_operator_that_we_write_has_its_code():
    assert set(CODE_BYTES) == {INTERPRETER, "DECODE", *OPERATORS}
    assert all(len(row) == len(BUILDS) and min(row) > 0 for row in CODE_BYTES.values())


def test_sums_are_of_interpreter_operators_file_and_of_arena_variables_stack():
    found = rows("model.tflite", ["CONV_2D", "ADD"], 1000, [10, 20, 30, 40])
    assert [(row["core"], row["kernels"], row["arena_bytes"]) for row in found] == [
        ("Cortex-M4", "TFLM's reference kernels", 10),
        ("Cortex-M4", "CMSIS-NN", 20),
        ("Cortex-M55", "TFLM's reference kernels", 30),
        ("Cortex-M55", "CMSIS-NN", 40),
    ]
    for number, row in enumerate(found):
        assert row["code_bytes"] == sum(CODE_BYTES[kind][number] for kind in (INTERPRETER, "CONV_2D", "ADD"))
        assert row["flash_bytes"] == row["code_bytes"] + 1000
        assert row["variables_bytes"] == 216 + 2 * 48
        assert row["ram_bytes"] == row["arena_bytes"] + row["variables_bytes"] + STACK_BYTES


def test_an_arena_for_each_build_is_asked_for():
    with pytest.raises(ValueError):
        rows("model.tflite", ["CONV_2D"], 1000, [10, 20, 30])
