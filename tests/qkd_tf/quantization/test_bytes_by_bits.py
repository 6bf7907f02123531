"""Bits that bring no bytes are told with those that cost none."""

import pytest
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec, TargetSpec
from qkd_tf.quantization import bytes_by_bits
from qkd_tf.quantization.plan import make_plan


def notes(model, target, num_bits, storage="auto"):
    spec = QuantizationSpec(weight_bits=num_bits, activation_bits=4)
    return bytes_by_bits.notes(model, make_plan(model, spec), TargetSpec(target, weight_storage=storage), spec)


@pytest.mark.parametrize(
    "target, num_bits, storage, widest",
    [
        ("phone", 2, "auto", 8),
        ("phone", 4, "auto", 8),
        ("phone", 8, "auto", None),
        ("phone", 4, "int4_all", None),
        ("phone", 3, "int4_all", 4),
        ("phone", 6, "int4_all", 8),
        ("microcontroller", 2, "auto", 4),
        ("microcontroller", 4, "auto", None),
        ("microcontroller", 4, "int8", 8),
        ("ethos_u", 2, "auto", None),
    ],
)
def test_more_bits_in_as_many_bytes_are_offered(make_residual_student, target, num_bits, storage, widest):
    found = notes(make_residual_student(), target, num_bits, storage)
    assert len(found) == (widest is not None)
    assert all(f"weights of {num_bits} bits in as many bytes as weights of {widest} bits" in note for note in found)
    assert all(f"give --weight_bits={widest} --activation_bits=8, which" in note for note in found)
    packs = storage in ("auto", "int8") and num_bits <= 4 and (target, storage) != ("microcontroller", "auto")
    packed = ", or --activation_bits=8 --weight_storage=int4"  # activations of fewer bits save nothing
    assert all((packed in note) == packs for note in found)
    assert all(("int4_all" in note) == (note.endswith(", slower on a phone")) for note in found)


def test_the_flag_that_a_note_names_is_the_one_that_was_given(make_residual_student):
    model = make_residual_student()
    for bits, told in (((4, 4), "--bits=8"), ((4, 8), "--bits=8")):
        spec = QuantizationSpec(*bits, told_by_bits=True)
        (note,) = bytes_by_bits.notes(model, make_plan(model, spec), TargetSpec("phone"), spec)
        assert f"; give {told}, which loses less accuracy" in note


def test_bits_that_no_kernel_has_are_told(chain):
    small = chain(layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(4))
    for target in ("phone", "microcontroller", "ethos_u"):
        (note,) = notes(small, target, 4)
        assert "no kernel has the 4 bits that were asked for: --first_layer_bits" in note
        assert "asked for" not in " ".join(notes(small, target, 8))


def test_lookup_tables_that_pay_make_two_bits_fewer_bytes(chain):
    """A million weights: their tables and the code that reads them are less than what they save."""
    model = chain(layers.Flatten(), layers.Dense(2_048), layers.Dense(1_024), layers.Dense(4), input_shape=(8, 8, 1))
    assert notes(model, "microcontroller", 2) == [] and notes(model, "microcontroller", 4) == []
