"""The committed rows: every network, verified, and told in benchmarks/README.md as they are."""

import itertools
import json

import pytest

from benchmarks import networks_table

NAMES = [
    f"{networks_table.file_name(network)}_w{bits}a{bits}"
    for network, bits in itertools.product(networks_table.NETWORKS, networks_table.BITS)
]


@pytest.mark.parametrize("name", NAMES)
def test_row_passed_on_every_runtime_to_the_integer_and_stands_in_the_readme(name):
    row = json.loads((networks_table.RESULTS / f"{name}.json").read_text())
    assert row["passed"] and set(row["runtimes"]) == {"litert", "litert_reference", "tflm"}
    assert {runtime["integer_agreement"] for runtime in row["runtimes"].values()} == {100.0}
    readme = (networks_table.RESULTS.parent / "README.md").read_text()
    assert f"{networks_table.line(row)}\n" in readme


def test_a_row_that_failed_is_told_as_failed():
    error = {"network": "resnet18", "bits": 4, "error": "error: no room"}
    assert networks_table.line(error) == "| resnet18 | W4A4 | error: no room | | | |"
    row = {"network": "resnet18", "bits": 4, "passed": False, "bytes": 1000, "runtimes": {}}
    assert networks_table.line(row) == "| resnet18 | W4A4 | REFUSED | 1,000 | - | - | - |"
