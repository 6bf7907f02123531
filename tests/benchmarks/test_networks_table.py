"""The committed rows: every network, verified, and told in benchmarks/README.md as they are."""

import itertools
import json
import subprocess

import pytest

from benchmarks import networks_table


def names(networks):
    return [f"{networks_table.file_name(n)}_w{b}a{b}" for n, b in itertools.product(networks, networks_table.BITS)]


README = (networks_table.RESULTS.parent / "README.md").read_text()


@pytest.mark.parametrize("name", names(networks_table.NETWORKS))
def test_row_passed_on_every_runtime_to_the_integer_and_stands_in_the_readme(name):
    row = json.loads((networks_table.RESULTS / f"{name}.json").read_text())
    assert row["passed"] and set(row["runtimes"]) == {"litert", "litert_reference", "tflm"}
    assert {runtime["integer_agreement"] for runtime in row["runtimes"].values()} == {100.0}
    assert f"{networks_table.line(row)}\n" in README


def test_no_other_rows_lie_there():
    assert {path.stem for path in networks_table.RESULTS.glob("*.json")} == {*names(networks_table.NETWORKS)}


def test_a_network_is_trained_at_its_own_size(monkeypatch):
    commands = []

    def refuse(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "error: no room")

    monkeypatch.setattr(networks_table.subprocess, "run", refuse)
    for name, size in (("tf_keras.applications:EfficientNetB2", 260), ("resnet18", 224)):
        assert networks_table.run(name, 4, ["--seed=1"])["error"] == "error: no room"
        assert f"--image_size={size}" in commands.pop()


def test_a_row_that_failed_is_told_as_failed():
    error = {"network": "resnet18", "bits": 4, "error": "error: no room"}
    assert networks_table.line(error) == "| resnet18 | W4A4 | error: no room | | | |"
    row = {"network": "resnet18", "bits": 4, "passed": False, "bytes": 1000, "runtimes": {}}
    assert networks_table.line(row) == "| resnet18 | W4A4 | REFUSED | 1,000 | - | - | - |"
