import copy
import dataclasses
import json
import pathlib
from collections import Counter

import numpy as np
import pytest
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from tf_keras import layers

from qkd_tf.contract.gate import Gate
from qkd_tf.contract.grid import IntegerGrid, TensorQuantParams
from qkd_tf.contract.runtime_arithmetic import LATER
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.outcome import handoff as handoff_module
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference import runtimes as runtimes_module
from tflite_export.inference.runtimes import RUNTIMES, absence
from tflite_export.proof import asking, gate
from tflite_export.proof import verification as verification_module
from tflite_export.proof.asking import agreement, equal_codes
from tflite_export.proof.verdict import print_verdict
from tflite_export.proof.verification import verify
from tflite_export.rebuilding.rebuild import rebuild

GATE = Gate()
PHONE = TARGETS["phone"]


def check(exported, content=None, handoff=None, gate=GATE, target=PHONE, runtimes=("litert",)) -> dict:
    return verify(content or exported.content, exported.graph, handoff or exported.handoff, gate, target, runtimes)


def tensor_of(model, name: str):
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name == name.encode()]
    return tensor


def index_of(model, name: str) -> int:
    return model.subgraphs[0].tensors.index(tensor_of(model, name))


def operator_of(model, output: str):
    (operator,) = [o for o in model.subgraphs[0].operators if o.outputs[0] == index_of(model, output)]
    return operator


def add_operator_code(model, kind: str) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
    code.version = 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def flip_byte(name: str):
    def change(model):
        model.buffers[tensor_of(model, name).buffer].data[0] ^= 1

    return change


def set_byte(name: str, value: int):
    def change(model):
        model.buffers[tensor_of(model, name).buffer].data[0] = value

    return change


def next_scale(name: str):
    def change(model):
        scale = tensor_of(model, name).quantization.scale
        scale[-1] = np.nextafter(scale[-1], np.float32(np.inf))

    return change


def move_zero_point(name: str):
    def change(model):
        tensor_of(model, name).quantization.zeroPoint[0] += 1

    return change


def set_tensor(tensor_name: str, **fields):
    def change(model):
        tensor = tensor_of(model, tensor_name)
        for field, value in fields.items():
            setattr(tensor, field, value)

    return change


def set_axis(name: str, axis: int):
    def change(model):
        tensor_of(model, name).quantization.quantizedDimension = axis

    return change


def set_option(output: str, **fields):
    def change(model):
        for field, value in fields.items():
            assert getattr(operator_of(model, output).builtinOptions, field) != value
            setattr(operator_of(model, output).builtinOptions, field, value)

    return change


def replace_operator(output: str, kind: str):
    def change(model):
        operator_of(model, output).opcodeIndex = add_operator_code(model, kind)

    return change


def drop_operator(output: str):
    """Takes an operator out; who read its output now reads its input."""

    def change(model):
        dropped, skipped = operator_of(model, output), index_of(model, output)
        model.subgraphs[0].operators.remove(dropped)
        for operator in model.subgraphs[0].operators:
            operator.inputs = [dropped.inputs[0] if i == skipped else i for i in operator.inputs]

    return change


def swap_inputs(output: str):
    def change(model):
        operator = operator_of(model, output)
        operator.inputs = operator.inputs[::-1]

    return change


def read_instead(output: str, position: int, name: str):
    def change(model):
        operator_of(model, output).inputs[position] = index_of(model, name)

    return change


def leave_out_bias(output: str):
    def change(model):
        operator_of(model, output).inputs[2] = -1

    return change


def append_dequantize(model):
    result = copy.deepcopy(tensor_of(model, "logits"))
    result.name, result.type, result.quantization = b"floats", schema.TensorType.FLOAT32, None
    model.subgraphs[0].tensors.append(result)
    operator = schema.OperatorT()
    operator.opcodeIndex = add_operator_code(model, "DEQUANTIZE")
    operator.inputs, operator.outputs = [index_of(model, "logits")], [len(model.subgraphs[0].tensors) - 1]
    model.subgraphs[0].operators.append(operator)


def set_output(name: str):
    def change(model):
        model.subgraphs[0].outputs = [index_of(model, name)]

    return change


def add_subgraph(model):
    model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))


DAMAGES = {
    "weight": (flip_byte("depthwise/kernel"), ["tensor depthwise/kernel has 1 other integers"]),
    "weight_beyond_its_bits": (set_byte("linear/kernel", 8), ["linear/kernel spans", "3 bits are -6..6"]),
    "bias": (flip_byte("logits/bias"), ["tensor logits/bias has 1 other integers"]),
    "weight_scale": (next_scale("linear/kernel"), ["tensor linear/kernel has other scales"]),
    "activation_scale": (next_scale("add"), ["tensor add has other scales"]),
    "bias_scale": (next_scale("stem/bias"), ["tensor stem/bias has other scales"]),
    "zero_point": (move_zero_point("add"), ["tensor add has zero_point"]),
    "pixel_zero_point": (move_zero_point("normalization"), ["tensor normalization has zero_point 1; expected 0"]),
    "channel_axis": (set_axis("stem/kernel", 3), ["tensor stem/kernel has axis 3; expected 0"]),
    "shape": (set_tensor("logits/kernel", shape=[4, 5]), ["tensor logits/kernel has shape (4, 5); expected (5, 4)"]),
    "flat_shape": (set_tensor("depthwise/kernel", shape=[36]), ["tensor depthwise/kernel has shape (36,)"]),
    "int16": (set_tensor("add", type=schema.TensorType.INT16), ["tensor add has dtype int16; expected int8"]),
    "float": (set_tensor("add", type=schema.TensorType.FLOAT32), ["tensor add is float32"]),
    "name": (set_tensor("add", name=b"sum"), ["tensor add is missing", "tensor sum is not expected"]),
    "constant_made_activation": (set_tensor("stem/kernel", buffer=0), ["tensor stem/kernel is an activation"]),
    "activation_function": (
        set_option("stem_relu", fusedActivationFunction=schema.ActivationFunctionType.NONE),
        ["activation=NONE", "-> stem_relu; expected CONV_2D(normalization"],
    ),
    "relu6_for_relu": (
        set_option("depthwise_relu", fusedActivationFunction=schema.ActivationFunctionType.RELU6),
        ["activation=RELU6", "-> depthwise_relu; expected DEPTHWISE_CONV_2D"],
    ),
    "stride": (set_option("linear_bn", strideW=2), ["stride_w=2", "-> linear_bn; expected"]),
    "dilation": (set_option("stem_relu", dilationHFactor=2), ["dilation_h=2", "-> stem_relu; expected"]),
    "padding": (set_option("stem_relu", padding=schema.Padding.VALID), ["padding=VALID", "-> stem_relu; expected"]),
    "dimensions": (set_option("pool", keepDims=True), ["keep_dims=True) -> pool; expected MEAN"]),
    "unknown_option": (set_option("logits", keepNumDims=True), ["keep_num_dims=True) -> logits; expected"]),
    "operator": (replace_operator("add", "SUB"), ["is SUB(stem_relu, linear_bn", "expected ADD(stem_relu, linear_bn"]),
    "requantization_dropped": (
        drop_operator("stem_relu_requantize"),
        ["is DEPTHWISE_CONV_2D(stem_relu,", "expected QUANTIZE(stem_relu) -> stem_relu_requantize"],
    ),
    "requantization_passed_by": (
        read_instead("depthwise_relu", 0, "stem_relu"),
        ["is DEPTHWISE_CONV_2D(stem_relu,", "expected DEPTHWISE_CONV_2D(stem_relu_requantize,"],
    ),
    "inputs_swapped": (swap_inputs("add"), ["is ADD(linear_bn, stem_relu", "expected ADD(stem_relu, linear_bn"]),
    "bias_left_out": (leave_out_bias("linear_bn"), ["-> linear_bn; expected"]),
    "last_bias_left_out": (leave_out_bias("logits"), ["-> logits; expected"]),
    "dequantize": (append_dequantize, ["operator DEQUANTIZE makes floats", "tensor floats is float32"]),
    "output": (set_output("pool"), ["the output is pool; expected logits"]),
    "subgraph": (add_subgraph, ["2 subgraphs"]),
}


def test_honest_file_passes(exported):
    verification = check(exported)
    assert verification["failures"] == []
    assert verification["passed"] is True


@pytest.mark.parametrize("input_type", ["int8", "uint8"])
def test_honest_file_of_either_input_type_passes(residual, input_type):
    graph = rebuild(residual.handoff, input_type)
    verification = verify(convert(graph, ""), graph, residual.handoff, GATE, PHONE)
    assert verification["failures"] == []
    assert verification["runtimes"]["litert"]["student"]["equal_logits"] >= 99


def test_file_that_was_only_packed_anew_is_refused_for_its_packing_alone(residual, edit):
    """The control of the damages below: what refuses them is the damage, not the way it was done."""
    content = edit(residual.content, lambda model: None)
    assert [line.split(";")[0] for line in check(residual, content)["failures"]] == [
        "all tensors and operators are as expected, but the bytes are not packed as this version packs them"
    ]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_refused_and_the_damage_is_named(residual, edit, damage):
    change, lines = DAMAGES[damage]
    content = edit(residual.content, change)
    assert content != edit(residual.content, lambda model: None)
    verification = check(residual, content)
    assert verification["passed"] is False
    told = "\n".join(verification["failures"])
    for line in lines:
        assert line in told
    assert not verification.get("runtimes")  # it was not run


def test_damage_to_one_tensor_is_told_of_that_tensor_alone(residual, edit):
    failures = check(residual, edit(residual.content, flip_byte("depthwise/kernel")))["failures"]
    assert failures[0] == "tensor depthwise/kernel has 1 other integers than expected"
    assert all(line.startswith("tensor depthwise/kernel ") for line in failures)


@pytest.mark.slow
def test_file_of_another_network_is_refused(residual, make_handoff, make_residual_student):
    other = make_handoff(make_residual_student(seed=3))
    failures = "\n".join(verify(residual.content, rebuild(other), other, GATE, PHONE)["failures"])
    for name in ("stem/kernel", "depthwise/kernel", "linear/bias", "add"):
        assert f"tensor {name} has" in failures


def test_what_is_no_tflite_fails_without_a_stack_trace(residual):
    verification = check(residual, b"PK\x03\x04" * 30)
    assert verification["passed"] is False
    assert "not a .tflite" in verification["failures"][0]


def narrowed(handoff, name: str, num_bits: int):
    """The handoff with a claim that the tensor has fewer levels, at the same zero point."""
    params = handoff.tensor_params[name]
    grid = IntegerGrid(num_bits, 0, 2**num_bits - 1)
    claim = TensorQuantParams(grid, params.scale, params.zero_point)
    return dataclasses.replace(handoff, tensor_params={**handoff.tensor_params, name: claim})


@pytest.mark.parametrize("name, num_bits", [("depthwise_relu", 3), ("stem_relu_requantize", 2), ("stem_relu", 7)])
def test_activation_that_leaves_the_bits_it_claims_is_refused(residual, name, num_bits):
    verification = check(residual, handoff=narrowed(residual.handoff, name, num_bits))
    zero_point = residual.handoff.tensor_params[name].zero_point
    (line,) = verification["failures"]
    assert line.startswith(f"litert: tensor {name} spans ")
    assert line.endswith(f"its grid is {zero_point}..{zero_point + 2**num_bits - 1}")
    assert verification["passed"] is False


def test_signed_activation_below_its_grid_is_refused(make_handoff, chain, randomize):
    """A file that clips at one end alone, against an expectation that lacks it too: only running it finds out."""
    model = randomize(chain(layers.Conv2D(4, 3, name="stem"), layers.Conv2D(4, 3, name="inner"), layers.Conv2D(4, 1)))
    handoff = make_handoff(model, QuantizationSpec(activation_bits=4), {"stem": ("stem", 0.5)})
    graph = rebuild(handoff)
    clip = next(o for o in graph.operators if o.output == "stem")
    graph.operators.remove(clip)
    assert clip.kind == "QUANTIZE"
    (written,) = clip.inputs
    convolution = next(o for o in graph.operators if o.output == written)
    graph.operators[graph.operators.index(convolution)] = dataclasses.replace(convolution, output="stem")
    del graph.tensors[written]

    failures = verify(convert(graph, ""), graph, handoff, GATE, PHONE, ())["failures"]
    # 120 is 0.0, -7 the lowest integer of 4 bits in narrow range
    assert any(
        line.startswith("litert: tensor stem spans ") and line.endswith("its grid is 113..127") for line in failures
    )


def test_kernel_outside_its_bits_is_refused_though_it_was_expected(residual):
    """A handoff whose integers do not keep to their width makes a wrong expectation; the widths are checked alone."""
    codes = residual.handoff.weights["linear"].copy()
    codes[0, 0, 0, 0], codes[0, 0, 1, 0] = -4, 3
    handoff = dataclasses.replace(residual.handoff, weights={**residual.handoff.weights, "linear": codes})
    graph = rebuild(handoff)
    failures = verify(convert(graph, ""), graph, handoff, GATE, PHONE, ())["failures"]
    assert failures == ["tensor linear/kernel spans -8..6; 3 bits are -6..6"]


def faked(monkeypatch, residual, num_images=200, num_wrong=0, num_disagree=0, **fields):
    """A file that gets `num_wrong` more images wrong, and `num_disagree` wrong ones wrong in another way.

    Unless `fields` say otherwise it does so in the student's integers, too.
    """
    student = np.zeros((num_images, 5), np.int8)
    student[:, 0] = 10
    labels = np.zeros(num_images, np.int64)
    labels[num_images // 2 :] = 1  # the student is right on the first half
    logits = student.copy()
    logits[:num_wrong, 2] = 20
    logits[num_images - num_disagree :, 2] = 20
    monkeypatch.setattr(asking, "infer", lambda *_: (logits, {"median_seconds": 0.001}))
    fields = {"integer_logits": {"litert": logits}, **fields}
    return dataclasses.replace(residual.handoff, student_logits=student, test_labels=labels, **fields)


@pytest.mark.parametrize("num_disagree", [1, 100])
def test_agreement_with_the_student_in_real_numbers_is_told_and_not_demanded(monkeypatch, residual, num_disagree):
    verification = check(residual, handoff=faked(monkeypatch, residual, num_disagree=num_disagree))
    assert verification["failures"] == []
    row = verification["runtimes"]["litert"]
    assert row["student"]["top1_agreement"] == 100 - num_disagree / 2
    assert row["accuracy"] == {
        "num_images": 200,
        "top1": 50.0,
        "student_top1": 50.0,
        "only_file_right": 0,
        "only_student_right": 0,
        "p": 1.0,
    }


@pytest.mark.parametrize("num_wrong, passed", [(0, True), (9, True), (10, False)])
def test_file_that_is_worse_than_the_student_beyond_chance_is_refused(monkeypatch, residual, num_wrong, passed):
    """1/2^9 is more than a thousandth, 1/2^10 is less."""
    verification = check(residual, handoff=faked(monkeypatch, residual, 1000, num_wrong=num_wrong))
    assert verification["runtimes"]["litert"]["accuracy"]["p"] == 2.0**-num_wrong
    line = (
        "litert: top-1 is 49.00 %, which is below the student's 50.00 % in floating point by more than chance: of "
        "1,000 images 10 are right only in floating point and 0 only in the file, p = 0.00098; p must be at least 0.001"
    )
    assert verification["failures"] == ([] if passed else [line])
    doubts = [note for note in verification["notes"] if note.startswith("accepted, but 0.90 points below the student")]
    assert len(doubts) == (num_wrong == 9)
    assert not [note for note in verification["notes"] if "to be sure" in note and note not in doubts]


@pytest.mark.parametrize("num_images, passed", [(12_000, True), (5_000, False)])
def test_a_fifth_of_a_point_is_allowed_though_it_is_beyond_chance(monkeypatch, residual, num_images, passed):
    handoff = faked(monkeypatch, residual, num_images, num_wrong=12)
    assert check(residual, handoff=handoff)["passed"] is passed


def test_only_the_judge_refuses_a_file_for_its_accuracy(monkeypatch, residual):
    handoff = faked(monkeypatch, residual, num_wrong=50)
    logits = handoff.integer_logits["litert"]
    handoff = dataclasses.replace(handoff, integer_logits={"litert": logits, "litert_reference": logits})
    verification = check(residual, handoff=handoff, runtimes=("litert", "litert_reference"))
    assert [line.split(":")[0] for line in verification["failures"]] == ["litert"]


@pytest.mark.parametrize("change", [1, -1])
def test_one_logit_beside_its_prediction_is_refused(monkeypatch, residual, change):
    """Though every class is the same, and but one integer of thousands is a step off."""
    logits = faked(monkeypatch, residual, 2000).integer_logits["litert"].copy()
    logits[-1, 3] += change
    handoff = faked(monkeypatch, residual, 2000, integer_logits={"litert": logits})
    (line,) = check(residual, handoff=handoff)["failures"]
    assert (
        line
        == "litert: tensor of the logits has 99.990 % of the integers that the student predicts, up to 1 step apart"
    )


def test_gate_is_the_callers(monkeypatch, residual):
    handoff = faked(monkeypatch, residual, num_wrong=20)
    assert check(residual, handoff=handoff, gate=Gate(min_accuracy_p=0.0))["passed"] is True
    assert check(residual, handoff=handoff, gate=Gate(max_top1_difference=10.0))["passed"] is True
    assert check(residual, handoff=handoff, gate=Gate(9.9))["passed"] is False


def test_file_better_than_its_student_passes(monkeypatch, residual):
    handoff = faked(monkeypatch, residual, num_wrong=20)
    better = dataclasses.replace(handoff, test_labels=np.where(np.arange(200) < 20, 2, handoff.test_labels))
    verification = check(residual, handoff=better)
    assert verification["passed"] is True
    assert verification["runtimes"]["litert"]["accuracy"]["only_file_right"] == 20


def test_runtimes_that_are_slow_get_the_first_images_and_the_rest_counts_by_prediction(monkeypatch, residual):
    """TFLM and the reference kernels run what there is time for, which the notes say."""
    monkeypatch.setattr(asking, "SLOW_PIXELS", 20 * 8 * 8)
    codes = {
        row: {name: x[:5] for name, x in tensors.items()} for row, tensors in residual.handoff.integer_codes.items()
    }
    handoff = dataclasses.replace(residual.handoff, integer_codes=codes)
    verification = check(residual, handoff=handoff, runtimes=("litert", "litert_reference"))
    assert verification["failures"] == []
    rows = verification["runtimes"]
    assert {name: row["num_images"] for name, row in rows.items()} == {"litert": 32, "litert_reference": 20}
    assert {row["accuracy"]["num_images"] for row in rows.values()} == {32}
    assert rows["litert_reference"]["integer_student"]["num_images"] == 20
    note = "litert_reference ran only the first 20 of the 32 test images, since it is slow here"
    assert note in verification["notes"]


@pytest.mark.slow
def test_correct_file_of_a_deep_network_of_many_classes_passes(monkeypatch, make_handoff):
    """MobileNetV2 with 1,000 classes: in floats it names other classes, now right and now wrong, and is as good.

    Labels are what the float network says, so that the student is often right. Weights are random, and BatchNorm has
    the statistics of the images: else every image were of one class.
    """
    tf_keras.utils.set_random_seed(0)
    model = zoo.build(NetworkSpec("mobilenet_v2_0.5_cifar", PixelNormalization((128.0,), (64.0,))), (32, 32, 3), 1000)
    batch_norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    images = np.random.default_rng(11).integers(0, 256, (32, 32, 32, 3)).astype(np.float32)
    for layer in batch_norms:
        layer.momentum = 0.5
    for _ in range(12):
        model(images, training=True)
    monkeypatch.setattr(handoff_module, "NUM_CODE_IMAGES", 2)  # NumPy takes a second an image
    for bits in (6, 8, 7, 5):  # on each processor, floats of some widths name the same class of all 32 images
        handoff = make_handoff(model, QuantizationSpec(weight_bits=8, activation_bits=bits))
        named = np.argmax(model.predict_on_batch(np.asarray(handoff.test_images)), axis=-1)
        handoff = dataclasses.replace(handoff, test_labels=named)
        graph = rebuild(handoff)
        verification = verify(convert(graph, ""), graph, handoff, GATE, PHONE, ())
        assert verification["failures"] == []
        row = verification["runtimes"]["litert"]
        assert row["integer_student"]["equal_logits"] == row["codes"]["equal_codes"] == 100
        if row["student"]["top1_agreement"] < 99.5:
            break
    assert row["student"]["top1_agreement"] < 99.5 and row["student"]["equal_logits"] < 99
    assert row["accuracy"]["student_top1"] > 25 and row["accuracy"]["p"] > GATE.min_accuracy_p


def test_operator_that_computes_otherwise_is_refused_though_the_classes_agree(monkeypatch, residual):
    """A runtime whose depthwise convolution is a step off in one integer of the first images."""
    genuine = asking.every_tensor

    def off_by_a_step(*args):
        codes = genuine(*args)
        codes["depthwise_relu"] = np.where(np.arange(4) == 2, 120, codes["depthwise_relu"]).astype(np.int8)
        return codes

    monkeypatch.setattr(asking, "every_tensor", off_by_a_step)
    failures = check(residual)["failures"]
    assert failures[0].startswith("litert: tensor depthwise_relu has 7")
    assert " % of the integers that its inputs give, up to " in failures[0]


def test_file_of_every_case_passes_on_every_runtime(exported):
    images = exported.handoff.test_images
    assert exported.handoff.integer_logits["tflm"].shape == exported.handoff.student_logits.shape
    verification = check(exported, runtimes=tuple(RUNTIMES))
    assert verification["failures"] == [] and verification["num_images"] == len(images)


def test_file_whose_integers_are_not_those_that_the_student_predicts_is_refused(residual):
    codes = {row: dict(tensors) for row, tensors in residual.handoff.integer_codes.items()}
    codes["litert"]["depthwise_relu"][0, 0, 0, :2] += 2
    handoff = dataclasses.replace(residual.handoff, integer_codes=codes)
    (line,) = check(residual, handoff=handoff)["failures"]
    assert line.startswith("litert: tensor depthwise_relu has 9")
    assert line.endswith("% of the integers that the student predicts, up to 2 steps apart")


def test_logits_that_are_not_predicted_are_refused_though_the_classes_agree(residual):
    logits = {name: values.copy() for name, values in residual.handoff.integer_logits.items()}
    lowest = logits["litert"][-1].argmin()
    logits["litert"][-1, lowest] -= 1
    (line,) = check(residual, handoff=dataclasses.replace(residual.handoff, integer_logits=logits))["failures"]
    assert line.startswith("litert: tensor of the logits has 99.")


def test_int4_that_the_target_has_no_kernel_for_is_refused(residual):
    content = convert(store(residual.graph, "int4_all", PHONE), "")
    failures = check(residual, content, target=TARGETS["ethos_u"])["failures"]
    assert "tensor linear/kernel has dtype int4; expected int8" in failures


def test_runtimes_are_each_told_of(residual):
    verification = check(residual, runtimes=tuple(RUNTIMES))
    assert list(verification["runtimes"]) == list(RUNTIMES)
    for name, row in verification["runtimes"].items():
        if "not_run" in row:
            assert absence(name) == row["not_run"]
            continue
        assert row["integer_student"]["equal_logits"] == row["operators"]["equal_codes"] == 100
        assert row["codes"]["equal_codes"] == 100 and row["codes"]["first_different"] is None
        assert row["codes"]["num_tensors"] == len(residual.handoff.tensor_params)
        assert row["median_seconds"] > 0
    assert verification["runtimes"]["litert"]["delegated_operators"] == 100
    assert verification["runtimes"]["litert_reference"]["delegated_operators"] == 0
    if absence("tflm") is None:
        assert verification["runtimes"]["tflm"]["arena_bytes"] > 1000


def test_runtime_that_is_absent_is_told_and_not_failed(monkeypatch, residual):
    monkeypatch.setattr(verification_module, "absence", lambda name: "it is not here" if name == "tflm" else None)
    monkeypatch.setattr(asking, "absence", lambda name: "it is not here" if name == "tflm" else None)
    monkeypatch.setattr(gate, "absence", lambda name: "it is not here" if name == "tflm" else None)
    verification = check(residual, runtimes=tuple(RUNTIMES))
    assert verification["passed"] is True
    assert verification["runtimes"]["tflm"]["not_run"] == "it is not here"
    assert "tflm did not run the file: it is not here" in verification["notes"]


def test_microcontrollers_are_judged_by_the_reference_kernels_where_tflm_is_absent(monkeypatch, residual):
    monkeypatch.setattr(verification_module, "absence", lambda name: "it is not here" if name == "tflm" else None)
    monkeypatch.setattr(asking, "absence", lambda name: "it is not here" if name == "tflm" else None)
    monkeypatch.setattr(gate, "absence", lambda name: "it is not here" if name == "tflm" else None)
    verification = check(residual, target=TARGETS["microcontroller"], runtimes=())
    assert (verification["judge"], list(verification["runtimes"])) == ("litert_reference", ["litert_reference"])
    assert any(note.startswith("litert_reference judged the file in place of tflm") for note in verification["notes"])


def test_runtime_that_does_not_take_the_file_fails_it_too(monkeypatch, residual):
    genuine = verification_module.infer

    def refuse(name, *args):
        if name == "litert_reference":
            raise ExportError("litert_reference does not take the file: too new")
        return genuine(name, *args)

    monkeypatch.setattr(asking, "infer", refuse)
    verification = check(residual, runtimes=("litert", "litert_reference"))
    assert verification["failures"] == ["litert_reference does not take the file: too new"]


def test_file_that_the_flatbuffer_verifier_rejects_is_refused_whoever_judges(residual):
    """Readers of single fields may not notice that a table reaches beyond the file."""
    refused = 0
    for position in range(100, 400, 3):
        content = bytearray(residual.content)
        content[position] = 0xEE
        if runtimes_module.invalid(bytes(content)):
            refused += 1
            assert check(residual, bytes(content), target=TARGETS["microcontroller"])["passed"] is False
    assert refused > 3


def test_runtime_that_cannot_keep_so_many_tensors_apart_is_asked_for_the_logits(monkeypatch, residual, capsys):
    """As TFLM beyond 1,024 buffers. A file of fewer that it does not take is still refused."""
    genuine = RUNTIMES["litert_reference"]

    def session(graph, content, every_tensor):
        if every_tensor:
            raise RuntimeError("failed to allocate tensors")
        return genuine.session(graph, content, every_tensor)

    limited = dataclasses.replace(genuine, session=session, max_apart=5)
    monkeypatch.setitem(RUNTIMES, "litert_reference", limited)
    verification = check(residual, runtimes=("litert", "litert_reference"))
    row = verification["runtimes"]["litert_reference"]
    assert verification["passed"] and row["codes"]["num_tensors"] == 2 and row["operators"]["num_tensors"] == 0
    assert row["integer_student"]["equal_logits"] == row["codes"]["equal_codes"] == 100
    print_verdict(verification, pathlib.Path("model.tflite"))
    told = capsys.readouterr().out
    assert "litert_reference: 100.00 % of the integers are as predicted (the logits of 32 images); " in told
    assert "note: litert_reference cannot keep so many tensors apart, so only its logits were compared" in told
    other = {name: logits + 1 for name, logits in residual.handoff.integer_logits.items()}
    wrong = dataclasses.replace(residual.handoff, integer_logits=other)
    refused = check(residual, handoff=wrong, runtimes=("litert_reference",))
    assert any("tensor of the logits has" in failure for failure in refused["failures"])
    monkeypatch.setitem(RUNTIMES, "litert_reference", dataclasses.replace(limited, max_apart=1_000))
    refused = check(residual, runtimes=("litert", "litert_reference"))
    assert refused["failures"] == ["litert_reference does not take the file: failed to allocate tensors"]


def test_judge_that_does_not_take_the_file_fails_it(monkeypatch, residual):
    def refuse(*_):
        raise ExportError("litert does not take the file: too new")

    monkeypatch.setattr(asking, "infer", refuse)
    assert check(residual)["failures"] == [
        "litert must run the file, because it is the judge, and did not: litert does not take the file: too new"
    ]


def test_runtime_without_the_int4_kernels_is_asked_with_int8(residual):
    """LiteRT's reference kernels have no INT4 DEPTHWISE_CONV_2D."""
    content = convert(store(residual.graph, "int4_all", PHONE), "")
    verification = check(residual, content, runtimes=("litert", "litert_reference"))
    row, plain = verification["runtimes"]["litert_reference"], check(residual, runtimes=("litert_reference",))
    assert row["unpacked"] is True and "unpacked" not in verification["runtimes"]["litert"]
    assert row["top1"] == plain["runtimes"]["litert_reference"]["top1"]
    assert any(note.startswith("litert_reference has no INT4 kernels for") for note in verification["notes"])


@pytest.mark.parametrize("absent", [(), ("tflm",)])
@pytest.mark.parametrize("target", ["phone", "microcontroller"])
def test_int4_file_holds_the_same_integers(monkeypatch, residual, target, absent):
    monkeypatch.setattr(verification_module, "absence", lambda name: "not here" if name in absent else absence(name))
    monkeypatch.setattr(asking, "absence", lambda name: "not here" if name in absent else absence(name))
    monkeypatch.setattr(gate, "absence", lambda name: "not here" if name in absent else absence(name))
    graph = store(residual.graph, "int4_all", TARGETS[target])
    content = convert(graph, "")
    assert len(content) < len(residual.content)
    verification = check(residual, content, target=TARGETS[target])
    assert verification["failures"] == []
    types = {row["name"]: row["type"] for row in verification["tensors"]}
    assert types["linear/kernel"] == types["depthwise/kernel"] == "int4"
    assert types["stem/kernel"] == "int8"


def test_file_for_a_microcontroller_has_every_predicted_integer_on_every_runtime(exported):
    """Kernels in INT4 beside such as are never stored so: LiteRT computes each in its own arithmetic."""
    graph = store(rebuild(exported.handoff, "int8", "MAXIMUM"), "auto", TARGETS["microcontroller"])
    if all(tensor.dtype != "int4" for tensor in graph.tensors.values()):
        pytest.skip("nothing in it is INT4")
    runtimes = tuple(name for name in RUNTIMES if absence(name) is None)
    found = verify(convert(graph, ""), graph, exported.handoff, GATE, TARGETS["microcontroller"], runtimes)
    assert [failure for failure in found["failures"] if "integers" in failure] == []
    assert "not_run" not in found["runtimes"]["litert"]
    for row in (row for row in found["runtimes"].values() if "not_run" not in row):
        assert row["codes"]["equal_codes"] == row["integer_student"]["equal_logits"] == 100


def test_int4_convolutions_of_litert_have_an_arithmetic_of_their_own(residual):
    verification = check(residual, convert(store(residual.graph, "int4_all", PHONE), ""))
    assert verification["failures"] == []
    row = verification["runtimes"]["litert"]
    assert row["arithmetic"] == "litert_int4"
    assert (
        row["integer_student"]["equal_logits"] == row["operators"]["equal_codes"] == row["codes"]["equal_codes"] == 100
    )
    assert row["student"]["equal_logits"] < 100  # they round twice
    assert any(note.startswith("litert rounds twice where training rounds once") for note in verification["notes"])
    assert sum("rounds INT4 convolutions differently on ARM64" in note for note in verification["notes"]) == 1
    assert check(residual)["runtimes"]["litert"]["arithmetic"] == "litert"


def test_single_pixels_as_int4_dense_layers_are_as_predicted_on_every_runtime(residual):
    """On XNNPACK as in int8; rounded once by the reference kernels; TFLM has none with a scale for each channel."""
    content = convert(store(residual.graph, "int4", PHONE), "")
    verification = check(residual, content, runtimes=tuple(RUNTIMES))
    assert verification["failures"] == []
    rows = verification["runtimes"]
    assert (rows["litert"]["arithmetic"], rows["litert"]["delegated_operators"]) == ("litert", 100)
    assert rows["litert_reference"]["arithmetic"] == "litert_reference_pointwise"
    assert [name for name, row in rows.items() if "unpacked" in row] == (["tflm"] if "codes" in rows["tflm"] else [])
    for row in (row for row in rows.values() if "not_run" not in row):
        assert row["codes"]["equal_codes"] == row["operators"]["equal_codes"] == 100
        assert row["integer_student"]["equal_logits"] == 100
    kernels = {row["name"]: row for row in verification["kernels"]}
    assert (kernels["linear/kernel"]["operator"], kernels["linear/kernel"]["type"]) == ("FULLY_CONNECTED", "int4")
    assert kernels["depthwise/kernel"]["type"] == kernels["stem/kernel"]["type"] == "int8"


def test_handoff_of_an_earlier_version_lacks_one_prediction_and_that_is_told(residual):
    def earlier(rows):
        return {name: row for name, row in rows.items() if name not in LATER}

    old = residual.handoff
    codes, logits = earlier(old.integer_codes), earlier(old.integer_logits)
    old = dataclasses.replace(old, integer_codes=codes, integer_logits=logits)
    assert check(residual, handoff=old, runtimes=("litert", "litert_reference"))["failures"] == []
    content = convert(store(residual.graph, "int4", PHONE), "")
    assert check(residual, content, handoff=old)["failures"] == []
    (line,) = check(residual, content, handoff=old, runtimes=("litert", "litert_reference"))["failures"]
    assert "has no predictions for litert_reference_pointwise; run python -m qkd_tf.train again" in line


def test_agreement_counts_classes_and_steps():
    expected = np.array([[1, 5, 0], [9, 2, 3], [-128, 0, 127], [4, 3, 2]], np.int8)
    logits = np.array([[1, 5, 0], [2, 2, 3], [127, 0, 126], [3, 4, 2]], np.int8)
    found = agreement(logits, expected, np.array([1, 0, 2, 1]))
    assert found["top1"] == 75
    assert found["top1_agreement"] == 25
    assert (found["other_top1"], found["close_calls"]) == (3, 1)  # 4 and 3 are close, 127 and 0 are not
    assert found["equal_logits"] == pytest.approx(100 * 7 / 12)
    assert found["off_by_one"] == pytest.approx(100 * 3 / 12)
    assert found["max_step_error"] == 255  # int8 differences would wrap


def test_equal_codes_name_the_first_tensor_that_differs():
    expected = {"a": np.array([1, 2], np.int8), "b": np.array([-128, 0], np.int8), "c": np.array([5], np.int8)}
    codes = {"a": expected["a"], "b": np.array([127, 0], np.int8), "c": np.array([4], np.int8)}
    found = equal_codes((name, codes[name], expected[name]) for name in codes)
    assert (found["num_tensors"], found["equal_codes"], found["max_step_error"]) == (3, 60, 255)
    assert found["first_different"] == "b"
    assert found["different"]["c"] == {"equal_codes": 0, "max_step_error": 1}


def test_verification_survives_json_and_has_its_keys(residual):
    verification = check(residual)
    assert json.loads(json.dumps(verification)) == verification
    assert verification.keys() == {
        "format",
        "passed",
        "failures",
        "notes",
        "gate",
        "target",
        "judge",
        "num_images",
        "student",
        "runtimes",
        "file",
        "multiply_adds",
        "weights",
        "operators",
        "kernels",
        "tensors",
        "seconds",
    }
    assert verification["format"] == 3
    assert verification["gate"] == dataclasses.asdict(GATE)
    assert verification["num_images"] == len(residual.handoff.test_images)
    assert verification["file"]["bytes"] == len(residual.content) == sum(verification["file"]["parts"].values())
    assert verification["operators"] == dict(Counter(o.kind for o in residual.graph.operators))


def test_every_key_is_documented(residual):
    """By tensor and by operator the keys are names of the network's, not ours."""
    page = (pathlib.Path(__file__).parents[3] / "docs" / "verification.md").read_text()
    verification = check(residual, convert(residual.graph, ""), runtimes=tuple(RUNTIMES))
    assert f"format {verification['format']}\n" in page.splitlines(keepends=True)[0]
    runtimes = verification.pop("runtimes")
    keys = {*verification, *verification["gate"], *verification["file"], *verification["weights"]}
    keys |= {*verification["kernels"][0], *verification["tensors"][0]}
    for row in runtimes.values():
        keys |= {*row, *(key for part in row.values() if isinstance(part, dict) for key in part)}
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def test_refused_file_gives_json_too(residual, edit):
    verification = check(residual, edit(residual.content, flip_byte("stem/kernel")))
    assert json.loads(json.dumps(verification)) == verification


def test_tensor_rows_tell_bits_levels_and_parameters(residual):
    rows = {row["name"]: row for row in check(residual)["tensors"]}
    assert rows.keys() == residual.graph.tensors.keys()
    kernel = rows["linear/kernel"]
    assert (kernel["type"], kernel["shape"], kernel["num_bits"], kernel["axis"]) == ("int8", [4, 1, 1, 4], 3, 0)
    assert kernel["num_levels"] == len(np.unique(residual.graph.tensors["linear/kernel"].data)) <= 7
    assert len(kernel["scale"]) == 4
    assert (rows["stem_relu_requantize"]["num_bits"], rows["stem_relu_requantize"]["zero_point"]) == (4, 112)
    assert 2 <= rows["stem_relu_requantize"]["num_levels"] <= 16
    assert rows["add"]["num_bits"] == 8
    assert "num_bits" not in rows["linear/bias"]
