"""Handoffs without training: random float models, quantized, calibrated on random pixels, and written."""

import contextlib
import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from unittest import mock

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from tf_keras import layers

from benchmarks.processor import emulated
from qkd_tf.contract.targets import TARGETS
from qkd_tf.data import Splits
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    NetworkSpec,
    PhaseSpec,
    PixelNormalization,
    QuantizationSpec,
    TrainingSpec,
)
from qkd_tf.outcome import handoff as handoff_writer
from qkd_tf.outcome import results
from qkd_tf.outcome.handoff import HandedOver
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage.run_folder import RunFolder
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import RUNTIMES
from tflite_export.load import Handoff, load_handoff
from tflite_export.rebuilding.rebuild import rebuild


@pytest.fixture(scope="session", autouse=True)
def processor(request):
    """With --processor, that one's LiteRT is what every test asks (`benchmarks.processor`)."""
    if name := request.config.getoption("--processor"):
        with emulated(name) as asked, mock.patch.dict(RUNTIMES, asked.runtimes()):
            yield
    else:
        yield


LOW = QuantizationSpec(weight_bits=3, activation_bits=4)
NUM_IMAGES = 32
FLAG_LINES = ["--student=residual", "--seed=0"]


def _splits(image_shape, output_shape) -> Splits:
    """Random pictures; a model that ends in a map [N, H, W, K] gets one label for all of it."""
    rng = np.random.default_rng(11)
    images = rng.integers(0, 256, (NUM_IMAGES, *image_shape)).astype(np.uint8)
    num_classes = output_shape[-1]
    labels = rng.integers(0, num_classes, (NUM_IMAGES, *[1] * (len(output_shape) - 2)))
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)  # the last batch is short
    return Splits(
        train=lambda epoch, first_step=0, share=(0, 1): batches.skip(first_step),
        calibration=batches,
        validation=batches,
        test=batches,
        num_train=NUM_IMAGES,
        batch_size=20,
        image_shape=tuple(image_shape),
        label_names=[f"class {i}" for i in range(num_classes)],
        fingerprint={
            "name": "random",
            "version": "1",
            "num_train": NUM_IMAGES,
            "num_test": NUM_IMAGES,
            "test_sha256": "5" * 64,
        },
    )


def _write_results(folder: RunFolder, splits: Splits, spec: QuantizationSpec, handed_over: HandedOver) -> None:
    """results.json as a training writes it, of one phase that never ran."""
    normalization = PixelNormalization((128.0,), (64.0,))
    experiment = Experiment(
        run_dir=str(folder.path),
        seed=0,
        data=DataSpec(name="random"),
        student=NetworkSpec("residual", normalization),
        teacher=None,
        quantization=spec,
        training=TrainingSpec(phases=(PhaseSpec("self_studying", 2, 0.1),)),
    )
    epoch = {"student_loss": 1.5, "student_top1": 0.5, "validation_top1": 40.0, "seconds": 1.0}
    phase = {
        "phase": "self_studying",
        "epochs": 2,
        "learning_rate": 0.1,
        "best_epoch": 2,
        "best_validation_top1": 41.0,
        "student_test_top1": handed_over.accuracy.real_numbers_top1,
        "seconds": 2.0,
        "history": [epoch, {**epoch, "validation_top1": 41.0}],
    }
    results.write(folder, experiment, splits, handed_over, [phase])


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """make_run(model, spec, intervals): run folder of a student that was quantized and calibrated, not trained.

    `intervals` sets tensors' intervals after calibration: layer name -> (layer whose interval is multiplied, factor).
    """

    def make(model, spec: QuantizationSpec = LOW, intervals=None) -> RunFolder:
        splits = _splits(model.input_shape[1:], model.output_shape)
        student = quantize_student(model, spec)
        calibrate(student, [images for images, _ in splits.calibration.as_numpy_iterator()], "minmax")
        calibrated = {name: row.params().scale for name, row in student.outputs.items()} | {
            student.pixels[0]: student.pixels[1].scale
        }
        for name, (reference, factor) in (intervals or {}).items():
            student.outputs[name].interval.assign(calibrated[reference] * factor)
        if not spec.narrow_range:
            for kernel in student.weights.values():  # so that some reach the integer that a narrow range lacks
                kernel.interval.assign(kernel.interval * 0.4)
        folder = RunFolder(str(tmp_path_factory.mktemp("runs") / "run"), FLAG_LINES)
        folder.claim()
        _write_results(folder, splits, spec, handoff_writer.write(student, splits, folder))
        return folder

    return make


@pytest.fixture(scope="session")
def make_handoff(make_run):
    """make_handoff(model, spec, intervals): the handoff of such a run, read by the exporter's own door."""
    return lambda *args, **options: load_handoff(make_run(*args, **options).handoff)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A handoff, its integer graph and its file."""

    name: str
    handoff: Handoff
    graph: IntegerGraph
    content: bytes
    expected_operators: Counter


def _export(name: str, handoff: Handoff, operators: str = "") -> Exported:
    graph = rebuild(handoff, "int8")
    return Exported(name, handoff, graph, convert(graph, "test"), Counter(operators.split()))


@dataclasses.dataclass(frozen=True)
class Case:
    """A small float network, how it is quantized, and the operators its file must have."""

    operators: str
    body: Callable
    input_shape: tuple[int, int, int] = (8, 8, 3)
    spec: QuantizationSpec = LOW
    intervals: dict = dataclasses.field(default_factory=dict)
    normalized: bool = True


def _through(*body):
    def apply(x):
        for layer in body:
            x = layer(x)
        return x

    return apply


def _pre_activation(x):
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(4, 3, padding="same")(layers.ReLU(name="relu")(x))
    return layers.Concatenate(name="concat")([layers.Add(name="add")([x, y]), x])


def _add(activation: bool):
    def apply(x):
        x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
        y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
        y = layers.Add(name="add")([x, layers.BatchNormalization(name="bn")(y)])
        return layers.ReLU(name="relu")(y) if activation else y

    return apply


def _padded_shortcut(x):
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="stem")(x)
    y = layers.ZeroPadding2D(1, name="pad")(x)
    y = layers.Conv2D(8, 3, 2, use_bias=False, name="conv")(y)
    y = layers.BatchNormalization(name="bn")(y)
    x = layers.MaxPooling2D(1, strides=2, name="subsample")(x)
    x = layers.ZeroPadding2D(((0, 0), (2, 3)), data_format="channels_first", name="pad_channels")(x)
    return layers.ReLU(name="relu")(layers.Add(name="add")([x, y]))


def _concatenated(x):
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    branches = [
        layers.Conv2D(3, 1, name="linear")(x),
        layers.Conv2D(2, 3, padding="same", activation="relu", name="wide")(x),
    ]
    return layers.Concatenate(name="concat")([*branches, x])


def _fork(x):
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    branches = [layers.Conv2D(4, 1, activation="relu", name=name)(x) for name in ("narrow", "wide")]
    return layers.Add(name="add")(branches)


def _swish(x):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    return layers.Multiply(name="swish")([x, layers.Activation("sigmoid", name="sigmoid")(x)])


def _squeeze_excite(x):
    x = _swish(x)
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Reshape((1, 1, 4), name="map")(gate)
    gate = layers.Conv2D(4, 1, name="excite")(gate)
    return layers.Multiply(name="gated")([x, layers.Activation("sigmoid", name="gate")(gate)])


def _bounded_relus(x):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU(1.0, name="one")(layers.BatchNormalization(name="bn")(x))
    y = layers.ReLU(0.5, name="half")(layers.Conv2D(4, 3, padding="same", name="wide")(x))
    x = layers.ReLU(1.25, name="sum")(layers.Add(name="add")([x, y]))
    return layers.ReLU(0.7, name="alone")(layers.MaxPooling2D(name="pool")(x))


def _hard_swish(x):
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    gate = layers.ReLU(1.0, name="gate")(layers.DepthwiseConv2D(1, name="shift")(x))
    return layers.Multiply(name="swish")([x, gate])


# Steps of the finer grid in one of the coarser; neither is one that XNNPACK's QUANTIZE could hold as it is.
FOUR_BITS, THREE_BITS = 17.3, 35.1

# Rectangular maps, kernels and strides wherever Keras takes them, so that height is not width.
CASES = {
    "conv_same_stride": Case(
        "CONV_2D",
        _through(layers.Conv2D(5, (3, 2), (2, 1), "same", use_bias=False), layers.BatchNormalization(), layers.ReLU()),
        (9, 6, 3),
    ),
    "conv_valid_bias": Case("CONV_2D", _through(layers.Conv2D(4, (2, 3), (1, 2), "valid")), (7, 8, 3)),
    "conv_dilation": Case("CONV_2D", _through(layers.Conv2D(4, 3, padding="same", dilation_rate=(2, 1)))),
    "pointwise": Case(
        "CONV_2D CONV_2D CONV_2D CONV_2D CONV_2D",
        _through(
            layers.Conv2D(6, 3, activation="relu"),
            layers.Conv2D(7, 1, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0, name="relu6"),
            layers.Conv2D(4, 1, activation="relu"),  # of an odd number of inputs
            layers.Conv2D(5, 1, name="half", strides=(1, 2), activation="relu"),
            layers.Conv2D(9, 1),
        ),
        (8, 7, 3),
        dataclasses.replace(LOW, last_layer_bits=3, bits_rule=("half=w3",)),
        intervals={"relu6": ("normalization", 64 * 12 / 21)},  # 6 is 10.5 steps
    ),
    "depthwise_stride": Case(
        "DEPTHWISE_CONV_2D",
        _through(
            layers.DepthwiseConv2D(3, 2, "same", use_bias=False), layers.BatchNormalization(), layers.Activation("relu")
        ),
        (8, 5, 3),
    ),
    "depthwise_dilation": Case(
        "DEPTHWISE_CONV_2D", _through(layers.DepthwiseConv2D((3, 2), padding="valid", dilation_rate=2)), (8, 7, 3)
    ),
    "depth_multiplier": Case(
        "DEPTHWISE_CONV_2D DEPTHWISE_CONV_2D DEPTHWISE_CONV_2D",
        _through(
            layers.DepthwiseConv2D((3, 2), 2, "same", depth_multiplier=4, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D((2, 3), depth_multiplier=3, activation="relu"),  # 36 channels: 4 blocks and 4
            layers.DepthwiseConv2D((1, 2)),
        ),
        (9, 8, 3),
        dataclasses.replace(LOW, last_layer_bits=3),
    ),
    "groups": Case(
        "CONV_2D CONV_2D CONV_2D CONV_2D CONV_2D",
        _through(
            layers.Conv2D(6, 3, activation="relu"),
            layers.Conv2D(6, 2, activation="relu"),
            layers.Conv2D(9, (3, 2), (2, 1), "same", groups=3),
            layers.ReLU(6.0, name="relu6"),
            layers.Conv2D(6, 1, groups=3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(4, 2, padding="same", dilation_rate=2, groups=2),
        ),
        (9, 8, 3),
        dataclasses.replace(LOW, last_layer_bits=3),
        intervals={"relu6": ("normalization", 64 * 12 / 21)},  # 6 is 10.5 steps
    ),
    "full_range": Case(
        "CONV_2D CONV_2D DEPTHWISE_CONV_2D CONV_2D",
        _through(
            layers.Conv2D(5, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(),  # of which some gammas are negative
            layers.ReLU(),
            layers.Conv2D(4, 3, activation="relu", name="two_bits"),
            layers.DepthwiseConv2D(3, activation="relu", name="three_bits"),
            layers.Conv2D(5, 1),
        ),
        (9, 8, 3),
        dataclasses.replace(LOW, narrow_range=False, bits_rule=("stem=w2", "two_bits=w2")),
    ),
    "dense": Case("RESHAPE FULLY_CONNECTED", _through(layers.Flatten(), layers.Dense(5)), (3, 4, 3)),
    "dense_batch_norm": Case(
        "RESHAPE FULLY_CONNECTED FULLY_CONNECTED",
        _through(
            layers.Flatten(),
            layers.Dense(16, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.Dense(5),
        ),
        (3, 4, 3),
    ),
    "add": Case(
        "CONV_2D QUANTIZE QUANTIZE CONV_2D ADD",
        _add(activation=False),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"stem_requantize": ("stem", FOUR_BITS)},
    ),
    "add_relu": Case(
        "CONV_2D QUANTIZE QUANTIZE CONV_2D ADD",
        _add(activation=True),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"stem_requantize": ("stem", FOUR_BITS)},
    ),
    "bits_rule": Case(
        "CONV_2D QUANTIZE CONV_2D CONV_2D ADD CONV_2D",
        _through(_fork, layers.Conv2D(5, 1)),
        spec=dataclasses.replace(LOW, bits_rule=("narrow=w2a2", "wide=w5a6", "stem=w7")),
    ),
    "swish": Case("CONV_2D LOGISTIC MUL", _swish, (8, 6, 3)),
    "swish_low_bit": Case(
        "CONV_2D LOGISTIC MUL QUANTIZE CONV_2D",
        _through(_swish, layers.Conv2D(5, 1)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
    ),
    "leaky_relu": Case(
        "CONV_2D LEAKY_RELU QUANTIZE QUANTIZE CONV_2D LEAKY_RELU",
        _through(
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.LeakyReLU(0.1, name="leaky"),
            layers.Conv2D(5, 1, name="last"),
            layers.LeakyReLU(name="logits"),
        ),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"leaky_requantize": ("leaky", FOUR_BITS)},
    ),
    "prelu": Case(
        "CONV_2D PRELU QUANTIZE QUANTIZE CONV_2D PRELU RESHAPE FULLY_CONNECTED PRELU",
        _through(
            layers.Conv2D(4, 3, name="conv"),
            layers.PReLU(shared_axes=[1, 2], name="channels"),
            layers.Conv2D(3, 3, name="inner"),
            layers.PReLU(name="values"),
            layers.Flatten(),
            layers.Dense(6, name="last"),
            layers.PReLU(name="logits"),
        ),
        (9, 6, 3),
        intervals={"channels_requantize": ("channels", FOUR_BITS)},
    ),
    "average_what_is_there": Case(
        "CONV_2D AVERAGE_POOL_2D QUANTIZE CONV_2D AVERAGE_POOL_2D QUANTIZE AVERAGE_POOL_2D QUANTIZE",
        _through(
            layers.Conv2D(4, 3, activation="relu", name="stem"),
            layers.AveragePooling2D(3, 1, "same", name="three"),
            layers.Conv2D(3, 1, name="signed"),
            layers.AveragePooling2D((2, 3), (2, 1), "same", name="rectangle"),
            layers.AveragePooling2D((5, 7), 1, "same", name="wide"),
        ),
        (9, 8, 3),
    ),
    "crop_and_repeat": Case(
        "CONV_2D SLICE RESIZE_NEAREST_NEIGHBOR CONV_2D",
        _through(
            layers.Conv2D(4, 3, activation="relu", name="stem"),
            layers.Cropping2D(((1, 0), (0, 2)), name="crop"),
            layers.UpSampling2D(2, name="repeat"),
            layers.Conv2D(3, 1, name="last"),
        ),
        (9, 8, 3),
    ),
    "bounded_relus": Case("CONV_2D CONV_2D ADD MAX_POOL_2D QUANTIZE", _bounded_relus, (8, 6, 3)),
    "hard_swish": Case(
        "CONV_2D DEPTHWISE_CONV_2D MUL QUANTIZE CONV_2D",
        _through(_hard_swish, layers.Conv2D(5, 1)),
        (8, 6, 3),
        dataclasses.replace(LOW, last_layer_bits=4),
    ),
    "squeeze_excite": Case(
        "CONV_2D LOGISTIC MUL MEAN QUANTIZE RESHAPE CONV_2D LOGISTIC MUL CONV_2D",
        _through(_squeeze_excite, layers.Conv2D(5, 1)),
        (8, 6, 3),
    ),
    "mean_global": Case("CONV_2D MEAN", _through(layers.Conv2D(6, 3), layers.GlobalAveragePooling2D())),
    "mean_map": Case("CONV_2D MEAN", _through(layers.Conv2D(6, 3), layers.AveragePooling2D((6, 4))), (8, 6, 3)),
    "average_pool": Case(
        "CONV_2D DEPTHWISE_CONV_2D",
        _through(layers.Conv2D(6, 3), layers.AveragePooling2D((3, 2), (2, 1))),
        (9, 7, 3),
    ),
    "max_pool": Case(
        "CONV_2D QUANTIZE MAX_POOL_2D CONV_2D",
        _through(layers.Conv2D(4, 3), layers.MaxPooling2D((3, 2), (2, 1), "same"), layers.Conv2D(5, 1)),
        (9, 8, 3),
        dataclasses.replace(LOW, last_layer_bits=4),
    ),
    "relu_alone": Case(
        "CONV_2D MAX_POOL_2D QUANTIZE QUANTIZE CONV_2D",
        _through(
            layers.Conv2D(4, 3, name="signed"), layers.MaxPooling2D(2), layers.ReLU(name="relu"), layers.Conv2D(5, 1)
        ),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"relu": ("signed", FOUR_BITS)},
    ),
    "relu_alone_seven_bits": Case(
        "CONV_2D MAX_POOL_2D QUANTIZE QUANTIZE CONV_2D",
        _through(
            layers.Conv2D(4, 3, name="signed"), layers.MaxPooling2D(2), layers.ReLU(name="relu"), layers.Conv2D(5, 1)
        ),
        spec=dataclasses.replace(LOW, last_layer_bits=7),
        intervals={"relu": ("signed", 1.03)},
    ),
    "relu6_alone": Case(
        "CONV_2D QUANTIZE QUANTIZE CONV_2D ADD QUANTIZE QUANTIZE CONCATENATION QUANTIZE QUANTIZE CONV_2D",
        _through(_pre_activation, layers.ReLU(6.0, name="relu6"), layers.Conv2D(5, 1)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"relu6": ("normalization", 64 * 6 / 15.4)},  # 15 steps end below 6
    ),
    "pads": Case(
        "CONV_2D QUANTIZE PAD CONV_2D DEPTHWISE_CONV_2D PAD ADD",
        _padded_shortcut,
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"stem_requantize": ("stem", FOUR_BITS)},
    ),
    "pad_pixels": Case("PAD CONV_2D", _through(layers.ZeroPadding2D(((1, 0), (0, 2))), layers.Conv2D(4, 3))),
    "reshape": Case("RESHAPE CONV_2D", _through(layers.Reshape((4, 3, 16)), layers.Conv2D(4, 2))),
    "requantize_unsigned": Case(
        "QUANTIZE CONV_2D",
        _through(layers.Conv2D(4, 3, activation="relu")),
        spec=dataclasses.replace(LOW, first_layer_bits=4, last_layer_bits=4),
        intervals={"pixels_requantize": ("pixels", FOUR_BITS)},
        normalized=False,
    ),
    "requantize_signed": Case(
        "QUANTIZE QUANTIZE CONV_2D",
        _through(layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, first_layer_bits=3, last_layer_bits=3),
        intervals={"normalization_requantize": ("normalization", THREE_BITS)},
    ),
    "maximum": Case(
        "CONV_2D QUANTIZE CONV_2D QUANTIZE CONV_2D",
        _through(layers.Conv2D(4, 3), layers.Conv2D(4, 3, name="inner"), layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"inner": ("inner", 0.5)},  # half of the range is clipped, above and below
    ),
    "concatenation": Case(
        "CONV_2D QUANTIZE CONV_2D CONV_2D QUANTIZE QUANTIZE QUANTIZE CONCATENATION",
        _concatenated,
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"stem_requantize": ("stem", FOUR_BITS)},
    ),
    "concatenation_low_bit": Case(
        "CONV_2D QUANTIZE CONV_2D QUANTIZE CONV_2D QUANTIZE QUANTIZE QUANTIZE CONCATENATION QUANTIZE CONV_2D",
        _through(_concatenated, layers.Conv2D(5, 1)),
        spec=dataclasses.replace(LOW, residual_bits=5, last_layer_bits=4),
    ),
    "relu6": Case(
        "CONV_2D CONV_2D",
        _through(layers.Conv2D(4, 3), layers.ReLU(6.0, name="relu6"), layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"relu6": ("relu6", 1.7)},  # 15 steps reach 10.2: the clip at 6 is the operator's, not int8's
    ),
    "relu6_then_relu": Case(
        "CONV_2D CONV_2D",
        _through(layers.Conv2D(4, 3), layers.ReLU(6.0), layers.ReLU(name="relu"), layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"relu": ("relu", 1.7)},
    ),
    "ends_in_flatten": Case(
        "CONV_2D MEAN CONV_2D RESHAPE",
        _through(
            layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(keepdims=True), layers.Conv2D(5, 1), layers.Flatten()
        ),
    ),
    "relu6_half_a_step": Case(
        "CONV_2D CONV_2D",
        _through(layers.Conv2D(4, 3), layers.ReLU(6.0, name="relu6"), layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, last_layer_bits=4),
        intervals={"relu6": ("pixels", 2.4)},  # 6 is 2.5 steps: XNNPACK clips at 2, the others at 3
        normalized=False,
    ),
    "relu6_half_a_step_narrow": Case(
        "CONV_2D CONV_2D CONV_2D DEPTHWISE_CONV_2D CONV_2D",
        _through(
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(4, 3),
            layers.ReLU(6.0, name="relu6"),
            layers.Conv2D(4, 1, activation="relu"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.ReLU(6.0, name="depthwise_relu6"),
            layers.Conv2D(4, 3),
        ),
        intervals=dict.fromkeys(("relu6", "depthwise_relu6"), ("normalization", 64 * 12 / 21)),  # 6 is 10.5 steps
    ),
    "requantize_dark_pixels": Case(
        "QUANTIZE QUANTIZE CONV_2D",
        _through(layers.Rescaling(1 / 64, -200 / 64, name="dark"), layers.Conv2D(4, 3)),
        spec=dataclasses.replace(LOW, first_layer_bits=7, last_layer_bits=7),
        intervals={"dark_requantize": ("dark", 256 / 77)},  # pixel 72 lies between two steps
        normalized=False,
    ),
}


def _build(case: Case):
    tf_keras.backend.clear_session()
    x = pixels = tf_keras.Input(case.input_shape, name="pixels")
    if case.normalized:
        x = layers.Rescaling(1 / 64, -2.0, name="normalization")(x)
    return tf_keras.Model(pixels, case.body(x))


@pytest.fixture(scope="session", params=CASES)
def exported(request, make_run, randomize, _handoffs_of_cases, _exported_cases) -> Exported:
    """Each case of CASES in turn: every operator that the exporter writes is the end of one, or near it."""
    name = request.param
    if name not in _exported_cases:
        case, handoff = CASES[name], _handoffs_of_cases / name
        if not handoff.exists():
            made = make_run(randomize(_build(case)), case.spec, case.intervals).handoff
            with contextlib.suppress(OSError):  # another worker was faster
                made.rename(handoff)
        _exported_cases[name] = _export(name, load_handoff(handoff), case.operators)
    return _exported_cases[name]


@pytest.fixture(scope="session")
def _exported_cases() -> dict:
    return {}


@pytest.fixture(scope="session")
def _handoffs_of_cases(tmp_path_factory):
    """A folder that all workers of a session share: what one has made the others read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cases"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def run_folder(make_run, make_residual_student) -> RunFolder:
    """The run of the residual student; tests only read it."""
    return make_run(make_residual_student(), intervals={"stem_relu_requantize": ("stem_relu", FOUR_BITS)})


@pytest.fixture(scope="session")
def residual(run_folder) -> Exported:
    """That run's handoff, graph and file."""
    return _export("residual", load_handoff(run_folder.handoff))


@pytest.fixture(scope="session")
def everything(randomize):
    """A small network of all that a student may have, gammas of 0 and below in it."""
    x = pixels = tf_keras.Input((13, 11, 3), name="pixels")
    x = layers.Rescaling(1 / 64, -2.0, name="normalization")(x)
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    x = shortcut = layers.ReLU(name="unsigned")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="signed")(x)
    x = layers.Conv2D(4, 1, name="pointwise")(x)
    x = layers.Add(name="add")([shortcut, x])
    x = layers.ReLU(name="add_relu")(x)
    x = layers.MaxPooling2D(2, 1, name="max_pool")(x)
    left = layers.Conv2D(3, 3, 2, use_bias=False, name="valid")(x)
    left = layers.ReLU(6.0, name="relu6")(layers.BatchNormalization(name="valid_bn")(left))
    right = layers.AveragePooling2D(2, name="average_pool")(x)
    right = layers.Conv2D(2, 2, name="right")(right)
    x = layers.Concatenate(name="concat")([left, right])
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="mixed")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=3, name="multiplied")(x)
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(6, use_bias=False, name="hidden")(x)
    x = layers.ReLU(name="hidden_relu")(layers.BatchNormalization(name="hidden_bn")(x))
    model = randomize(tf_keras.Model(pixels, layers.Dense(5, name="logits")(x), name="everything"))
    for name in ("stem_bn", "signed", "valid_bn", "hidden_bn"):
        gamma = model.get_layer(name).gamma
        gamma.assign(np.concatenate([[-0.8, 0.0], gamma.numpy()[2:]]))
    return model


@pytest.fixture(scope="session")
def contents():
    """contents(graph, runtime): the file, and where kernels fit INT4 also with those as INT4 that the runtime takes."""
    phone = TARGETS["phone"]
    takes = {
        "litert": phone,
        "litert_reference": dataclasses.replace(
            phone, int4={**phone.int4, "int4_all": {"CONV_2D": True, "FULLY_CONNECTED": True}}
        ),
        "tflm": TARGETS["microcontroller"],
    }

    def contents(graph: IntegerGraph, runtime: str) -> list[bytes]:
        stored = (store(graph, storage, takes[runtime]) for storage in takes[runtime].int4)
        return list(dict.fromkeys([convert(graph, ""), *(convert(file, "") for file in stored)]))

    return contents


@pytest.fixture(scope="session")
def edit():
    """edit(content, change): the bytes after `change(model)` on the flatbuffer's object form."""

    def edit(content: bytes, change: Callable) -> bytes:
        model = copy.deepcopy(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)))  # a copy can be written to
        change(model)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return edit


# Runs a command for each list of arguments and tells how it ended: one start of TensorFlow serves all.
DRIVER = """
import contextlib, importlib, io, json, sys
from qkd_tf.console import command_line
command = importlib.import_module(sys.argv[1])

ends = []
for arguments in json.loads(sys.argv[2]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command_line.run(command.main, command.FLAGS, ["command", *arguments])
        except SystemExit as end:
            code = end.code
        except Exception as error:
            code = repr(error)
    command.FLAGS.unparse_flags()
    ends.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
print(json.dumps(ends))
"""


@pytest.fixture(scope="session")
def end_of():
    """end_of(module, calls): how a command ends for each list of arguments: code, out and err, by the calls' names."""

    def end_of(module: str, calls: dict[str, list[str]]) -> dict[str, dict]:
        command = [sys.executable, "-c", DRIVER, module, json.dumps(list(calls.values()))]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert done.returncode == 0, done.stderr
        return dict(zip(calls, json.loads(done.stdout.splitlines()[-1]), strict=True))

    return end_of
