"""The limits that a run was given, and what came."""

import pytest

from tflite_export.bundles import firmware
from tflite_export.proof import room

TFLM = {"file": {"bytes": 72_640}, "runtimes": {"litert": {}, "tflm": {"arena_bytes": 5_000}}}


def test_limit_is_met_missed_or_not_known():
    assert room.lines({**TFLM, "max_flash_bytes": 150_000, "max_ram_bytes": 4_999}) == [
        "within --max_flash_bytes=150,000: the file takes 72,640 bytes",
        "NOT within --max_ram_bytes=4,999: TFLM's arena takes 5,000 bytes, 1 too many",
    ]
    without = {**TFLM, "runtimes": {}, "max_flash_bytes": 0, "max_ram_bytes": 4_999}
    assert room.lines(without) == ["--max_ram_bytes=4,999 was not checked: TFLM did not run the file"]
    assert room.lines(TFLM) == []


def test_last_line_names_every_limit_that_is_exceeded_and_what_helps():
    told = room.too_large({**TFLM, "max_flash_bytes": 72_639, "max_ram_bytes": 4_999})
    assert told.startswith("note: TOO LARGE for the limits, though verified: the file takes 72,640 bytes (--max_")
    assert "(--max_flash_bytes=72,639), TFLM's arena takes 5,000 bytes (--max_ram_bytes=4,999); use " in told
    assert "the file" not in room.too_large({**TFLM, "max_flash_bytes": 72_640, "max_ram_bytes": 4_999})
    assert "arena" not in room.too_large({**TFLM, "max_flash_bytes": 72_639, "max_ram_bytes": 0})


BOTH = {
    "file": {"bytes": 290_112},
    "flash_bytes": 170_000,
    "runtimes": {"tflm": {"arena_bytes": 85_414}},
    "compressed": {"arena_bytes": 270_374},
}


@pytest.mark.parametrize(
    "flash, ram, file",
    [
        (0, 0, room.COMPRESSED),
        (200_000, 150_000, room.COMPRESSED),  # neither fits
        (300_000, 150_000, room.PLAIN),
        (200_000, 300_000, room.COMPRESSED),
        (0, 150_000, room.PLAIN),
    ],
)
def test_flash_and_arena_are_those_of_one_file_which_fits_if_any_does(flash, ram, file):
    verification = {**BOTH, "max_flash_bytes": flash, "max_ram_bytes": ram}
    found = room.footprint(verification)
    taken = {room.PLAIN: (290_112, 85_414), room.COMPRESSED: (170_000, 270_374)}
    assert (found.file, found.flash, found.arena) == (file, *taken[file])
    assert all(file in line for line in room.lines(verification))
    assert bool(room.too_large(verification)) == ((flash, ram) == (200_000, 150_000))


def test_weights_that_tflm_unpacks_have_a_remedy_of_their_own():
    verification = {**TFLM, "max_ram_bytes": 4_999, "tensors": [{"type": "int8"}, {"type": "int4"}]}
    assert "; use --weight_storage=int8, whose weights TFLM does not unpack" in room.too_large(verification)
    assert "--weight_storage" not in room.too_large({**verification, "tensors": [{"type": "int8"}]})


def test_ram_of_a_microcontroller_is_told_without_a_limit():
    told = room.without_limit({**TFLM, "flash_bytes": 72_640})
    assert told == "TFLM's arena takes 5,000 bytes of RAM"
    assert "INT4" in room.without_limit({**TFLM, "flash_bytes": 72_640, "tensors": [{"type": "int4"}]})
    assert room.without_limit(TFLM) == "" == room.without_limit({**TFLM, "flash_bytes": 9, "max_ram_bytes": 1})


def test_nothing_is_too_large_within_the_limits_or_where_the_arena_is_not_known():
    assert room.too_large({**TFLM, "max_flash_bytes": 72_640, "max_ram_bytes": 5_000}) == "" == room.too_large(TFLM)
    assert room.too_large({**TFLM, "runtimes": {}, "max_flash_bytes": 0, "max_ram_bytes": 4_999}) == ""


def test_whole_firmware_is_told_where_it_is_known_and_limits_were_given():
    rows = firmware.rows("model.tflite", ["CONV_2D"], 1_000, [10, 20, 30, 40])
    told = room.in_all({**TFLM, "max_flash_bytes": 150_000, "firmware": rows})
    assert "on a Cortex-M4 model.tflite and TFLM take" in told and "Cortex-M55" not in told
    assert f"{rows[1]['flash_bytes']:,} bytes of flash and {rows[1]['ram_bytes']:,} of RAM with CMSIS-NN" in told
    assert room.in_all({**TFLM, "firmware": rows}) == "" == room.in_all({**TFLM, "max_flash_bytes": 150_000})
