import dataclasses

import numpy as np
import pytest

from qkd_tf.contract.targets import INPUT_TYPES, TARGETS, WEIGHT_STORAGES
from tflite_export.bundles import vela
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.flatbuffer.weight_storage import store, stored_as, unpacked
from tflite_export.inference.runtimes import RUNTIMES

NARROW, WIDE = np.array([[-7, 0], [3, 7]], np.int8), np.array([[-8, 0], [3, 7]], np.int8)


def graph(**dense) -> IntegerGraph:
    """Dense kernels by name: (codes, number of scales)."""
    found = IntegerGraph(notes=["of before"])
    for name, (codes, num_scales) in dense.items():
        axis = 0 if num_scales > 1 else None
        found.add_tensor(constant(name, codes, [0.5] * num_scales, axis=axis))
        found.operators.append(Operator("FULLY_CONNECTED", ("x", name, "b"), f"{name}_y"))
    return found


def convolution(kind="CONV_2D", shape=(2, 1, 1, 4), channels=4, axis=0, **options) -> IntegerGraph:
    """One convolution, `y`, of an `x` of so many channels, its codes narrow."""
    found = IntegerGraph(input="x", output="y")
    found.add_tensor(Tensor("x", (1, 4, 4, channels), "int8", np.array([0.5], np.float32)))
    codes = np.resize(np.array([-7, 0, 3], np.int8), shape)
    found.add_tensor(constant("k", codes, [0.5] * shape[axis or 0], axis=axis))
    steps = dict.fromkeys(("stride_h", "stride_w", "dilation_h", "dilation_w"), 1)
    found.operators.append(Operator(kind, ("x", "k", "b"), "y", {"activation": "RELU6", **steps, **options}))
    return found


def types(stored: IntegerGraph) -> dict[str, str]:
    return {name: tensor.dtype for name, tensor in stored.tensors.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_rows_name_what_there_is(name):
    target = TARGETS[name]
    assert set(target.judges) <= set(RUNTIMES) and target.judges
    assert target.input_type in INPUT_TYPES and target.auto in WEIGHT_STORAGES
    assert target.auto in ("int8", *target.int4) and set(target.int4) <= set(WEIGHT_STORAGES)


@pytest.mark.parametrize(
    "target, storage, expected",
    [
        ("phone", "auto", {"narrow": "int8", "channels": "int8", "wide": "int8"}),
        ("phone", "int4", {"narrow": "int4", "channels": "int4", "wide": "int8"}),
        ("microcontroller", "auto", {"narrow": "int4", "channels": "int8", "wide": "int8"}),
        ("microcontroller", "int8", {"narrow": "int8", "channels": "int8", "wide": "int8"}),
        ("ethos_u", "auto", {"narrow": "int8", "channels": "int8", "wide": "int8"}),
    ],
)
def test_kernels_are_stored_as_target_and_user_have_it(target, storage, expected):
    plain = graph(narrow=(NARROW, 1), channels=(NARROW, 2), wide=(WIDE, 1))
    stored = store(plain, storage, TARGETS[target])
    assert types(stored) == expected
    for name, tensor in stored.tensors.items():
        np.testing.assert_array_equal(tensor.data, plain.tensors[name].data)
    assert stored.notes[0] == "of before" and plain.notes == ["of before"]


@pytest.mark.skipif(vela.absence() is not None, reason=str(vela.absence()))
def test_vela_puts_every_operator_on_the_npu(exported):
    """What Arm's compiler does not take it leaves to the processor beside the NPU."""
    assert vela.Vela().compile(exported.content)[1]["cpu_operators"] == 0


def test_int4_that_a_target_does_not_take_is_refused_in_one_line():
    with pytest.raises(ExportError, match="an Ethos-U NPU does not run it .* use --weight_storage=int8") as caught:
        store(graph(narrow=(NARROW, 1)), "int4", TARGETS["ethos_u"])
    assert "\n" not in str(caught.value)


def test_notes_say_what_stays_int8_and_why():
    stored = store(graph(narrow=(NARROW, 1), channels=(NARROW, 2), wide=(WIDE, 1)), "auto", TARGETS["microcontroller"])
    assert stored.notes[1].startswith("1 kernel is stored as INT4, two integers per byte: microcontrollers are")
    reason = "no INT4 FULLY_CONNECTED with a scale for each channel there"
    assert (
        stored.notes[2]
        == f"stored as int8: channels ({reason}), wide (integers beyond 7, as in layers of more than 4 bits)"
    )


def test_int8_is_explained_kernel_by_kernel_and_a_smaller_storage_named_only_where_it_packs():
    """At 8 bits no kernel fits INT4, so nothing is promised of it; each kernel has the reason that is its own."""
    phone = TARGETS["phone"]
    plain = graph(narrow=(NARROW, 1), channels=(NARROW, 2), wide=(WIDE, 1))
    stored = store(plain, "auto", phone)
    assert set(types(stored).values()) == {"int8"}
    halves = f"{phone.reason}; --weight_storage=int4 halves its bytes"
    assert stored.storage == {
        "narrow": halves,
        "channels": halves,
        "wide": "integers beyond 7, as in layers of more than 4 bits",
    }
    num_bytes = 2 * plain.tensors["narrow"].num_bytes
    assert stored.notes[1] == (
        f"weights are stored as int8: {phone.reason}; --weight_storage=int4 stores 2 of 3 kernels in {num_bytes // 2} "
        f"bytes, instead of {num_bytes}"
    )
    assert store(graph(wide=(WIDE, 1)), "auto", phone).notes[1] == f"weights are stored as int8: {phone.reason}"
    map_kernel = store(convolution(shape=(2, 3, 3, 4)), "auto", phone).storage["k"]
    assert map_kernel == "INT4 CONV_2D is slower there; --weight_storage=int4_all packs it anyway"
    assert store(plain, "int8", phone).storage == dict.fromkeys(("narrow", "channels", "wide"), "as requested")


def test_file_may_store_as_int4_what_fits_and_nothing_else():
    expected = graph(narrow=(NARROW, 1), wide=(WIDE, 1))
    packed = {name: dataclasses.replace(t, dtype="int4") for name, t in expected.tensors.items()}
    found = dataclasses.replace(expected, tensors=packed)
    assert types(stored_as(expected, found, TARGETS["phone"])) == {"narrow": "int4", "wide": "int8"}
    assert types(stored_as(expected, expected, TARGETS["phone"])) == {"narrow": "int8", "wide": "int8"}


@pytest.mark.parametrize("target", ["phone", "microcontroller"])
def test_dense_kernels_of_an_odd_number_of_inputs_stay_int8(target):
    """LiteRT rounds twice there, and only there."""
    plain = graph(odd=(NARROW[:, :1], 1), even=(NARROW, 1))
    stored = store(plain, "int4", TARGETS[target])
    assert types(stored) == {"odd": "int8", "even": "int4"}
    assert stored.notes[2] == "stored as int8: odd (an odd number of inputs)"
    packed = {name: dataclasses.replace(t, dtype="int4") for name, t in plain.tensors.items()}
    found = dataclasses.replace(plain, tensors=packed)
    assert types(stored_as(plain, found, TARGETS[target])) == {"odd": "int8", "even": "int4"}
    assert set(types(stored_as(plain, found, TARGETS["ethos_u"])).values()) == {"int8"}


def test_single_pixels_become_a_dense_layer_of_int4_on_phones_alone():
    plain = convolution()
    stored = store(plain, "int4", TARGETS["phone"])
    (dense,), kernel = stored.operators, stored.tensors["k"]
    assert (dense.kind, dense.inputs, dense.output) == ("FULLY_CONNECTED", ("x", "k", "b"), "y")
    assert dense.options == {"activation": "RELU6", "keep_num_dims": True}
    assert (kernel.dtype, kernel.shape, kernel.axis, kernel.num_bytes) == ("int4", (2, 4), 0, 4)
    np.testing.assert_array_equal(kernel.data, plain.tensors["k"].data[:, 0, 0])
    assert stored.storage == {"k": "as INT4 FULLY_CONNECTED: CONV_2D of single pixels"}
    for target, storage in (("phone", "int4_all"), ("microcontroller", "int4"), ("microcontroller", "auto")):
        found = store(plain, storage, TARGETS[target])
        assert found.operators == plain.operators and types(found)["k"] == "int4"


@pytest.mark.parametrize(
    "changed, why",
    [
        ({"stride_w": 2}, "INT4 CONV_2D is slower there; --weight_storage=int4_all packs it anyway"),
        ({"dilation_h": 2}, "INT4 CONV_2D is slower there; --weight_storage=int4_all packs it anyway"),
        ({"shape": (2, 1, 2, 4)}, "INT4 CONV_2D is slower there; --weight_storage=int4_all packs it anyway"),
        ({"shape": (2, 1, 1, 3), "channels": 3}, "an odd number of inputs"),
        (
            {"kind": "DEPTHWISE_CONV_2D", "shape": (1, 1, 1, 4), "axis": 3},
            "INT4 DEPTHWISE_CONV_2D is slower there; --weight_storage=int4_all packs it anyway",
        ),
    ],
)
def test_other_convolutions_stay_int8_on_phones_unless_all_are_asked_for(changed, why):
    plain = convolution(**changed)
    stored = store(plain, "int4", TARGETS["phone"])
    assert (types(stored)["k"], stored.operators, stored.storage) == ("int8", plain.operators, {"k": why})
    assert types(store(plain, "int4_all", TARGETS["phone"]))["k"] == "int4"


@pytest.mark.parametrize(
    "channels, multiplier, dilation, target, dtype",
    [
        (3, 1, 2, "microcontroller", "int8"),
        (3, 1, 1, "microcontroller", "int4"),
        (4, 1, 2, "microcontroller", "int4"),
        (3, 2, 1, "microcontroller", "int8"),
        (3, 3, 1, "microcontroller", "int8"),
        (4, 3, 2, "microcontroller", "int4"),
        (3, 1, 2, "phone", "int8"),
        (3, 2, 1, "phone", "int8"),
        (3, 1, 1, "phone", "int4"),
    ],
)
def test_depthwise_kernels_that_cmsis_nn_computes_wrongly_stay_int8_on_every_target(
    channels, multiplier, dilation, target, dtype
):
    shape, options = (1, 3, 3, multiplier * channels), {"dilation_w": dilation}
    plain = convolution("DEPTHWISE_CONV_2D", shape, channels, axis=3, **options)
    stored = store(plain, "int4_all", TARGETS[target])
    assert types(stored)["k"] == dtype
    assert ("CMSIS-NN" in stored.storage["k"]) == (dtype == "int8")


@pytest.mark.parametrize(
    "inputs, target, dtype",
    [(2, "microcontroller", "int8"), (4, "microcontroller", "int4"), (2, "phone", "int8"), (4, "phone", "int4")],
)
@pytest.mark.parametrize("size", [1, 3])
def test_kernels_in_groups_stay_int8_on_every_target(inputs, target, dtype, size):
    stored = store(convolution(shape=(2, size, size, inputs)), "int4_all", TARGETS[target])
    assert types(stored)["k"] == dtype
    assert ("groups, which CMSIS-NN" in stored.storage["k"]) == (dtype == "int8")


@pytest.mark.parametrize("storage", ["int8", "int4", "int4_all"])
def test_each_form_of_a_file_is_known_again(storage):
    plain = convolution()
    found = store(plain, storage, TARGETS["phone"])
    again = stored_as(plain, found, TARGETS["phone"])
    assert again.operators == found.operators and types(again) == types(found)
    refused = stored_as(plain, found, TARGETS["microcontroller"])
    assert (refused.operators == found.operators) == (storage != "int4")


def test_unpacked_graph_is_the_one_before_packing():
    plain = graph(narrow=(NARROW, 1), wide=(WIDE, 1))
    assert types(unpacked(store(plain, "int4", TARGETS["phone"]))) == types(plain)


def test_kernels_are_those_of_convolutions_and_dense_layers(residual):
    names = [kernel.name for _, kernel in residual.graph.kernels()]
    assert names == ["stem/kernel", "depthwise/kernel", "linear/kernel", "logits/kernel"]


def test_many_kernels_that_are_kept_are_counted():
    wide = graph(**{name: (WIDE, 1) for name in "abcde"})
    stored = store(wide, "auto", TARGETS["microcontroller"])
    assert stored.notes[1:] == [
        "stored as int8: a, b, c and 2 more (integers beyond 7, as in layers of more than 4 bits)"
    ]
