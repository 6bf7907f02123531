import types

import psutil
import pytest
import tensorflow as tf
from tf_keras import layers

from qkd_tf.distillation import step_memory
from qkd_tf.experiment import PhaseSpec, TrainingSpec

OUTPUTS = 8 * 8 * 3 + 6 * 6 * 4 + 4 + 10  # of `net`, its pixels included


@pytest.fixture
def net(chain):
    return chain(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(10), input_shape=(8, 8, 3))


@pytest.fixture
def free(monkeypatch):
    """free(bytes): what the machine has."""
    return lambda number: monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=number))


def training(*phases, **fields) -> TrainingSpec:
    return TrainingSpec(phases=tuple(PhaseSpec(phase, 1, 0.01) for phase in phases), **fields)


def test_an_image_takes_what_all_layers_give_and_a_teacher_where_it_is_trained(net):
    alone = step_memory.image_bytes(net, None, training("self_studying"))
    assert alone == round(step_memory.PER_OUTPUT * 4 * OUTPUTS)
    assert step_memory.image_bytes(net, net, training("self_studying", "tutoring")) == alone
    assert step_memory.image_bytes(net, net, training("co_studying", "tutoring")) == round(
        step_memory.PER_OUTPUT * 4 * 2 * OUTPUTS
    )


@pytest.mark.parametrize("images_free, parts, told", [(64, 1, None), (63, 1, "=2 "), (20, 1, "=4 "), (20, 4, None)])
def test_parts_are_proposed_that_leave_room(net, free, images_free, parts, told):
    spec = training("self_studying", gradient_accumulation_steps=parts)
    free(images_free * step_memory.image_bytes(net, None, spec))
    found = step_memory.notes(net, None, spec, 64)
    assert len(found) == (told is not None)
    assert all(f"--gradient_accumulation_steps{told}" in note for note in found)


def test_what_no_part_brings_into_memory_is_said(net, free):
    free(10)
    (note,) = step_memory.notes(net, None, training("self_studying"), 64)
    assert "--image_size" in note and "accumulation" not in note


def test_only_the_memory_of_this_machine_is_looked_at(net, free, monkeypatch):
    free(10)
    assert step_memory.notes(net, None, training(), 64) == []
    assert step_memory.notes(net, None, training("self_studying", strategy="mirrored"), 64) == []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert step_memory.notes(net, None, training("self_studying"), 64) == []
