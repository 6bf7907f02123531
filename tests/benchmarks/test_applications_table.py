"""The table of Keras's classifiers: its lines, and what is expected of them."""

import pytest

from benchmarks import applications_table as table

REFUSAL = (
    "net cannot become an integer .tflite: layer a is a Lambda; write it (and 1 more layer like it); layer b is new"
)
FILE = {"passed": True, "bytes": 1000, "equal": 100.0, "runtimes": 3}


def test_a_line_has_the_verdicts_on_files():
    row = {"network": "lib:Net", "preflight": "taken", "W8A8": FILE, "W4A4": {"error": "no room"}}
    assert table.cells(row) == ("lib:Net", "taken", "passed, 1,000 bytes, 100.00 % on 3 runtimes", "no room")
    refused = FILE | {"passed": False, "equal": 99.5}
    assert table.cells(row | {"W8A8": refused})[2] == "REFUSED, 1,000 bytes, 99.50 % on 3 runtimes"


@pytest.mark.parametrize(
    "refusal, told",
    [
        (REFUSAL, "layer a is a Lambda"),
        ("net cannot be used: it is a model of Keras 3, and its layer a, a B, is not converted: it is new; write it",
         "layer a, a B, is not converted: it is new"),
    ],
)  # fmt: skip
def test_a_line_gives_the_first_reason(refusal, told):
    assert table.cells({"network": "lib:Net", "preflight": refusal}) == ("lib:Net", told, "", "")


def test_networks_without_files_share_the_lines_of_their_library():
    as_expected = "net cannot be used: its layer a, a LayerScale, is not converted; write it"
    verdicts = {"a:X": "taken", "b:X": "taken", "b:ConvNeXtS": as_expected, "a:Z": "taken", "b:ConvNeXtL": as_expected}
    verdicts["b:V"] = REFUSAL
    rows = [{"network": network, "preflight": verdict} for network, verdict in verdicts.items()]
    assert table.lines([*rows, {"network": "b:W", "preflight": "taken", "W8A8": FILE}]) == [
        ("b:V", "layer a is a Lambda", "", ""),
        ("b:W", "taken", "passed, 1,000 bytes, 100.00 % on 3 runtimes", ""),
        ("a:X, Z", "taken", "", ""),
        ("b:X", "taken", "", ""),
        ("b:ConvNeXtS, ConvNeXtL", "its layer a, a LayerScale, is not converted", "", ""),
    ]


@pytest.mark.parametrize(
    "network, verdict, expected",
    [
        ("keras.applications:VGG16", "taken", True),
        ("keras.applications:VGG16", REFUSAL, False),
        ("keras.applications:ConvNeXtBase", "taken", False),
        ("keras.applications:ConvNeXtBase", "its layer a, a LayerScale, is not converted", True),
        ("keras.applications:ConvNeXtBase", REFUSAL, False),
    ],
)
def test_a_refusal_is_expected_for_its_reason_alone(network, verdict, expected):
    assert table.is_expected(network, verdict) == expected
    assert table.is_fine({"network": network, "preflight": verdict}) == expected


@pytest.mark.parametrize("file", [FILE | {"passed": False}, {"error": "no room"}])
def test_a_file_that_did_not_pass_is_not_fine(file):
    row = {"network": "lib:Net", "preflight": "taken", "W8A8": FILE}
    assert table.is_fine(row) and not table.is_fine(row | {"W4A4": file})
