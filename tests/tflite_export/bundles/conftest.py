"""The bundle of a run that has lookup tables."""

from unittest import mock

import pytest
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec
from tflite_export.exporter import export
from tflite_export.flatbuffer import compress


@pytest.fixture(scope="session")
def bundle(make_run, chain, randomize):
    """Run folder of a student at 2 bits, exported for microcontrollers: with lookup tables."""
    model = chain(layers.Conv2D(32, 3, name="stem"), layers.Conv2D(16, 3, name="conv"), layers.Conv2D(4, 1))
    run_dir = make_run(randomize(model), QuantizationSpec(weight_bits=2, activation_bits=4)).path
    with mock.patch.object(compress, "DECODE_CODE_BYTES", 0):  # tables of so small a network pay for no code
        assert export(run_dir, "microcontroller", runtimes=())["passed"]
    return run_dir
