"""What GPUs would compute, by lists of devices that are not there."""

import numpy as np
import pytest
import tensorflow as tf

from qkd_tf.contract.runtime_arithmetic import ARITHMETICS
from qkd_tf.process import accelerators
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.quantization.integer_graph import IntegerGraph
from qkd_tf.quantization.integer_student import IntegerStudent


@pytest.fixture
def gpus(monkeypatch):
    """gpus(number): TensorFlow tells of as many; returns what is set of each."""

    def make(number):
        grown = {}
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:{i}" for i in range(number)])
        monkeypatch.setattr(tf.config.experimental, "set_memory_growth", grown.__setitem__)
        return grown

    return make


@pytest.mark.parametrize("number", [0, 1, 3])
def test_memory_of_every_gpu_grows(gpus, number):
    grown = gpus(number)
    accelerators.grow_memory()
    assert grown == {f"GPU:{i}": True for i in range(number)}


def test_devices_that_have_started_stay_as_they_are(gpus, monkeypatch):
    gpus(1)

    def started(*_):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", started)
    accelerators.grow_memory()


@pytest.mark.parametrize(
    "number, told", [(0, "the CPU trains"), (1, "a GPU trains"), (2, "; the other with --strategy=mirrored")]
)
def test_people_are_told_what_for(number, told):
    assert told in accelerators.use(number)


def test_tf32_is_off_in_a_call_and_as_it_was_behind_it():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    before = enabled()
    try:
        for user in (True, False):
            tf.config.experimental.enable_tensor_float_32_execution(user)
            with borrowed():
                assert not enabled()
            assert enabled() == user
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def test_every_operator_of_the_student_in_integers_is_placed_on_the_cpu(make_quantized_student):
    student = IntegerStudent(make_quantized_student())
    graph = IntegerGraph(student, ARITHMETICS["litert"], 4)
    traced = graph._logits.get_concrete_function().graph
    # Variables are read where they are.
    anywhere = ("Placeholder", "Identity", "NoOp", "Const", "ReadVariableOp")
    computing = [node for node in traced.get_operations() if node.type not in anywhere]
    assert computing and [node.name for node in computing if not node.device.endswith("CPU:0")] == []
    assert traced.variables and all(variable.device.endswith("CPU:0") for variable in traced.variables)


def test_the_definition_asks_for_the_cpu(make_quantized_student, monkeypatch):
    asked, original = [], tf.device
    monkeypatch.setattr(tf, "device", lambda name: asked.append(name) or original(name))
    student = IntegerStudent(make_quantized_student())
    asked.clear()
    student.predict(np.zeros([1, *student.image_shape], np.uint8), ARITHMETICS["litert"])
    assert asked and set(asked) == {accelerators.EXACT}
