"""The classifiers of Keras: which there are, what a verdict is, and what is run."""

import pytest

from benchmarks import applications, applications_table


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
    assert applications_table.is_expected("tf_keras.applications:ConvNeXtTiny", verdict)


def test_what_a_row_says_already_is_not_run_again(monkeypatch):
    monkeypatch.setattr(applications, "look", lambda network, image_size: "taken")
    monkeypatch.setattr(applications, "train", lambda network, image_size, bits: {"passed": True, "bits": bits})
    (looked_at,) = applications.rows("lib:Net", 75, False, {})
    assert looked_at == {"network": "lib:Net", "preflight": "taken"}
    partly = looked_at | {"W8A8": {"error": "no room"}}
    whole = partly | {"W4A4": {"passed": True, "bits": 4}}
    assert list(applications.rows("lib:Net", 75, True, partly)) == [partly, whole]
    assert list(applications.rows("lib:Net", 75, False, partly)) == [partly]


def test_a_row_is_given_after_each_width(monkeypatch):
    monkeypatch.setattr(applications, "look", lambda network, image_size: "taken")
    monkeypatch.setattr(applications, "train", lambda network, image_size, bits: {"bits": bits})
    given = [sorted(row) for row in applications.rows("lib:Net", 75, True, {})]
    assert given == [
        ["network", "preflight"],
        ["W8A8", "network", "preflight"],
        ["W4A4", "W8A8", "network", "preflight"],
    ]


def test_a_network_that_is_refused_is_not_trained(monkeypatch):
    monkeypatch.setattr(applications, "look", lambda network, image_size: "layer a is a Lambda")
    (row,) = applications.rows("lib:Net", 75, True, {})
    assert set(row) == {"network", "preflight"}


def test_a_command_that_was_killed_makes_no_row(monkeypatch):
    monkeypatch.setattr(
        applications.subprocess, "run", lambda *_, **__: applications.subprocess.CompletedProcess([], -9, "", "")
    )
    with pytest.raises(SystemExit, match="qkd_tf.preflight --student=a:B was killed by signal 9"):
        applications.look("a:B", 75)
