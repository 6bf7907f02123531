"""The table of keras.applications: which there are, what a verdict is, and what is expected."""

import pytest

from benchmarks import applications

REFUSAL = "net cannot become an integer .tflite: layer a is a Lambda; write it; layer b is a Lambda; write it"


def test_names_are_builders_of_both_libraries():
    pytest.importorskip("keras", "3")
    for library in applications.LIBRARIES:
        found = applications.names(library)
        assert {"MobileNetV3Small", "VGG16", "ConvNeXtTiny"} <= set(found) and "mobilenet" not in found
    assert set(applications.SMALLEST) <= set(applications.names("tf_keras"))


@pytest.mark.slow
def test_a_network_is_taken_or_refused_in_a_line():
    assert applications.look("tf_keras.applications:MobileNet", 32) == "taken"
    verdict = applications.look("tf_keras.applications:ConvNeXtTiny", 32)
    assert "is a LayerNormalization" in verdict and "\n" not in verdict
    assert applications.is_expected("tf_keras.applications:ConvNeXtTiny", verdict)


def test_a_row_names_the_first_layer_and_counts_the_others():
    files = ["passed, 1,000 bytes, 100.00 % on 3 runtimes", "error: no room"]
    assert applications.line("lib:Net", "taken", files) == f"| lib:Net | taken | {files[0]} | {files[1]} |"
    assert applications.line("lib:Net", REFUSAL, []) == (
        "| lib:Net | layer a is a Lambda; write it (and 1 more layers) |  |  |"
    )


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
    assert applications.is_expected(network, verdict) == expected
