"""Bundles on an emulated Cortex-M4F and Cortex-M55, with TFLM's reference kernels and with CMSIS-NN.

`make micro TFLM=DIR` runs these. DIR is a checkout of tflite-micro with its downloads.
"""

import itertools
import pathlib
import tempfile

import hypothesis
import pytest
from hypothesis import strategies as st

from benchmarks import boards, subjects
from benchmarks.boards import BOARDS, KERNELS, Firmware
from benchmarks.boards_table import NETWORKS, NUM_IMAGES, TARGET, random_handoff, write_bundle
from qkd_tf.experiment import QuantizationSpec
from tests.tflite_export.bundles import drawn_networks
from tflite_export.bundles.firmware import BUILDS, TOLERANCE
from tflite_export.inference.runtimes import absence
from tflite_export.load import load_handoff
from tflite_export.rebuilding.rebuild import rebuild

ROWS = list(itertools.product(BOARDS, KERNELS))  # as those of BUILDS

pytestmark = [
    pytest.mark.boards,
    pytest.mark.skipif(absence("tflm") is not None, reason=str(absence("tflm"))),
]


@pytest.fixture(scope="session", params=ROWS, ids="-".join)
def firmware(request):
    tflm = request.config.getoption("--tflm")
    if reason := boards.absence(tflm):
        pytest.skip(reason)
    return Firmware(tflm, *request.param)


@pytest.fixture(scope="session", params=NETWORKS)
def network(request, tmp_path_factory):
    """Bundle and verification of a network with random weights."""
    handoff = random_handoff(request.param)
    graph = rebuild(handoff, TARGET.input_type, TARGET.clip)
    return write_bundle(graph, handoff, tmp_path_factory.mktemp("network"))


def assert_golden_images_pass(firmware, bundle, *flags):
    done = firmware.check(bundle, *flags)
    assert done.returncode == 0 and "\nPASS: " in done.stdout, done.stdout + done.stderr


def test_every_operator_gives_its_logits(exported, firmware, tmp_path):
    bundle, _ = write_bundle(exported.graph, exported.handoff, tmp_path)
    assert_golden_images_pass(firmware, bundle)


@hypothesis.settings(max_examples=10, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(network=drawn_networks.networks(), bits=st.sampled_from((2, 3, 4, 8)))
def test_drawn_networks_give_their_logits(firmware, network, bits):
    spec = QuantizationSpec(bits, bits, first_layer_bits=bits, last_layer_bits=bits)
    handoff = load_handoff(subjects.hand_over(network, spec, NUM_IMAGES))
    with tempfile.TemporaryDirectory() as folder:
        bundle, _ = write_bundle(rebuild(handoff, TARGET.input_type, TARGET.clip), handoff, pathlib.Path(folder))
        assert_golden_images_pass(firmware, bundle)


def test_network_gives_its_logits(network, firmware):
    assert_golden_images_pass(firmware, network[0])


def test_lookup_tables_give_the_logits_of_the_plain_file(bundle, firmware):
    assert_golden_images_pass(firmware, bundle / "export" / "micro", "-DMODEL_COMPRESSED")


def test_calculated_flash_and_ram_are_those_of_a_linked_program(network, firmware):
    bundle, verification = network
    row, size = verification["firmware"][ROWS.index((firmware.board, firmware.kernels))], firmware.size(bundle)
    assert size.flash == pytest.approx(row["flash_bytes"], rel=TOLERANCE)
    assert size.ram == pytest.approx(row["ram_bytes"] - row["stack_bytes"], rel=TOLERANCE)


def test_builds_that_are_calculated_are_those_that_are_linked():
    assert [build.core.lower() for build in BUILDS] == [board for board, _ in ROWS]
    assert [build.scratch is not None for build in BUILDS] == [kernels == "cmsis_nn" for _, kernels in ROWS]
