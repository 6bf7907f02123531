"""The table of a student before anything is trained: numbers by hand, refusals, limits, and the command."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from tf_keras import layers

from qkd_tf import flags, preflight
from qkd_tf.experiment import TARGETS, ExperimentError, NetworkSpec, PixelNormalization, QuantizationSpec, TargetSpec
from qkd_tf.models import zoo
from qkd_tf.quantization.plan import make_plan
from tests.in_process import start
from tests.saved_flags import saved_flags

SPEC = QuantizationSpec(weight_bits=3, activation_bits=4)
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table(make_residual_student):
    model = make_residual_student()
    return {row.name: row for row in preflight.rows(model, make_plan(model, SPEC))}


def test_every_layer_has_its_row(make_residual_student, table):
    assert list(table) == [layer.name for layer in make_residual_student().layers]
    assert table["stem"].kind == "Conv2D" and table["stem"].output_shape == (8, 8, 4)


@pytest.mark.parametrize(
    "name, weight_bits, input_bits, parameters, multiply_adds, num_bytes",
    [
        ("stem", 8, 8, 3 * 3 * 3 * 4 + 4, 8 * 8 * 3 * 3 * 3 * 4, 108 + 16),
        ("depthwise", 3, 4, 3 * 3 * 4 + 4, 8 * 8 * 3 * 3 * 4, 14 + 16),  # 36 kernels of 3 bits are 13.5 bytes
        ("linear", 3, 4, 4 * 4 + 4, 8 * 8 * 4 * 4, 6 + 16),
        ("logits", 8, 8, 4 * 5 + 5, 4 * 5, 20 + 20),
    ],
)
def test_row_of_a_kernel_by_hand(table, name, weight_bits, input_bits, parameters, multiply_adds, num_bytes):
    row = table[name]
    assert (row.weight_bits, row.input_bits) == (weight_bits, input_bits)
    assert (row.parameters, row.multiply_adds, row.num_bytes) == (parameters, multiply_adds, num_bytes)


def test_rows_of_groups_and_of_a_depth_multiplier_by_hand_which_every_target_takes(chain):
    model = chain(
        layers.Conv2D(8, 3, padding="same", name="stem"),
        layers.Conv2D(12, 3, groups=4, padding="same", name="grouped"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="multiplied"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    found = preflight.rows(model, make_plan(model, SPEC))
    rows = {row.name: (row.parameters, row.multiply_adds) for row in found}
    assert rows["grouped"] == (3 * 3 * 2 * 12 + 12, 8 * 8 * 3 * 3 * 2 * 12)  # a filter reads 2 of the 8 channels
    assert rows["multiplied"] == (3 * 3 * 24 + 24, 6 * 6 * 3 * 3 * 24)
    assert [preflight.limits(found, model, TargetSpec(target)) for target in TARGETS] == [[]] * 3


def test_what_is_folded_or_has_no_kernel_costs_nothing(table):
    for name in ("stem_bn", "stem_relu", "add", "pool"):
        assert (table[name].parameters, table[name].multiply_adds, table[name].num_bytes) == (0, 0, 0)
    assert table["add"].input_bits == 8 and table["stem_bn"].input_bits is None


@pytest.mark.parametrize("name, millions", [("mobilenet_v2_1.0", 301), ("resnet18", 1814), ("efficientnet_b0", 386)])
def test_multiply_adds_are_those_of_the_literature(name, millions):
    """MobileNetV2 300 M, ResNet-18 1.8 G, EfficientNet-B0 0.39 G; the depthwise and 1x1 ones are counted too."""
    model = zoo.build(NetworkSpec(name, PixelNormalization((128.0,), (64.0,))), (224, 224, 3), 1000)
    total = sum(preflight.MULTIPLY_ADDS[type(layer)](layer) for layer in model.layers if hasattr(layer, "kernel_size"))
    total += preflight.MULTIPLY_ADDS[layers.Dense](model.layers[-1])
    assert round(total / 1e6) == millions


def test_weights_are_stored_as_the_target_stores_them(table, make_residual_student):
    rows = list(table.values())
    kernels = {"stem": 108, "depthwise": 36, "linear": 16, "logits": 20}
    biases = 4 * (4 + 4 + 4 + 5)
    assert preflight.weight_bytes(rows, TargetSpec("phone")) == sum(kernels.values()) + biases
    assert preflight.weight_bytes(rows, TargetSpec("microcontroller")) == 108 + 18 + 8 + 20 + biases
    model = make_residual_student()
    full_range = preflight.rows(model, make_plan(model, dataclasses.replace(SPEC, narrow_range=False)))
    assert preflight.weight_bytes(full_range, TargetSpec("microcontroller")) == sum(kernels.values()) + biases


def test_peak_of_activations_holds_the_shortcut_too(make_residual_student):
    assert preflight.peak_activation_bytes(make_residual_student()) == 3 * 8 * 8 * 4  # shortcut, in and out of a conv


@pytest.mark.parametrize(
    "target, message",
    [
        (TargetSpec("microcontroller", max_flash_bytes=100), "--max_flash_bytes=100"),
        (TargetSpec("microcontroller", max_ram_bytes=100), "--max_ram_bytes=100"),
    ],
)
def test_limit_of_the_target_is_an_error(make_residual_student, target, message, capsys):
    with pytest.raises(ExperimentError, match=message):
        preflight.check(make_residual_student(), SPEC, target)
    assert "depthwise" in capsys.readouterr().out


def test_limits_that_hold_pass(make_residual_student, capsys):
    preflight.check(make_residual_student(), SPEC, TargetSpec("microcontroller", 10_000, 10_000))
    printed = capsys.readouterr().out
    assert "stem" in printed and "multiply-adds" in printed and "REFUSED" not in printed


def test_layer_that_the_plan_refuses_is_marked_in_the_table(chain, capsys):
    model = chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.Activation("tanh", name="bad"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    with pytest.raises(ExperimentError, match="layer bad has activation tanh"):
        preflight.check(model, SPEC, TargetSpec())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("bad")]
    assert "REFUSED" in line and "use relu" in line


def test_long_strides_are_no_work_for_an_ethos_u(chain):
    model = chain(layers.Conv2D(4, 4, 4, name="patches"), layers.GlobalAveragePooling2D(), layers.Dense(5))
    table = preflight.rows(model, make_plan(model, SPEC))
    assert "patches" in preflight.limits(table, model, TargetSpec("ethos_u"))[0]
    assert preflight.limits(table, model, TargetSpec("phone")) == []


LSTM = """
import tf_keras
def build(input_shape, num_classes):
    pixels = tf_keras.Input(input_shape)
    x = tf_keras.layers.Reshape((input_shape[0] * input_shape[1], input_shape[2]))(pixels)
    x = tf_keras.layers.LSTM(4, name="memory")(x)
    return tf_keras.Model(pixels, tf_keras.layers.Dense(num_classes)(x))
"""


@pytest.mark.parametrize("command", ["qkd_tf.preflight", "qkd_tf.train"])
def test_unsupported_layer_is_refused_by_the_command_within_20_seconds(tmp_path, command):
    (tmp_path / "mine.py").write_text(LSTM)
    flags = ["--flagfile=configs/demo.flags", f"--run_dir={tmp_path / 'run'}", "--student=mine:build"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - start
    assert done.returncode == 1
    assert "layer memory is a LSTM; use convolutions and pooling" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert seconds < 20


def test_command_prints_the_table_and_reads_no_picture():
    done = subprocess.run(
        [sys.executable, "-m", "qkd_tf.preflight", "--flagfile=configs/demo.flags"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "convnet_small: 16,698 parameters" in done.stdout


@pytest.mark.parametrize(
    "network, precision, told",
    [
        ("mobilenet_v2_0.25_cifar", "bfloat16", True),
        ("mobilenet_v2_0.25_cifar", "float32", False),
        ("resnet8", "bfloat16", False),
    ],
)
def test_bfloat16_on_depthwise_convolutions_is_noted_as_slower(network, precision, told):
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=x", f"--student={network}", f"--mixed_precision={precision}", "--phases="])
        experiment = flags.experiment_from_flags()
    _, notes = preflight.student(experiment, (32, 32, 3), 10)
    assert any("slower" in note for note in notes) == told


@pytest.mark.parametrize("options, refused", [([], True), (["--nodeterministic"], False)])
def test_maximum_that_xla_cannot_train_deterministically_is_refused(chain, options, refused):
    model = chain(layers.Rescaling(1 / 255), layers.MaxPooling2D(name="pool"), layers.Flatten(), layers.Dense(5))
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=x", "--phases=", "--jit_compile", *options])
        experiment = flags.experiment_from_flags()
    given = dataclasses.replace(experiment.student, name="in_memory:trained:chain")
    experiment = dataclasses.replace(experiment, student=given)
    with (
        pytest.raises(ExperimentError, match="pool of .* MaxPooling2D.*--nodeterministic") if refused else nullcontext()
    ):
        preflight.student(experiment, (8, 8, 3), 5, model)


def test_a_batch_larger_than_the_set_is_refused_behind_what_the_network_is(capsys):
    arguments = ["--dataset=digits", "--student=convnet_small", "--batch_size=2000"]
    with pytest.raises(SystemExit) as end:
        start("qkd_tf.preflight", arguments)
    assert end.value.code == (
        "error: --batch_size=2000 is more than the 1293 training images of digits; give a smaller batch"
    )
    assert "convnet_small: 16,698 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    "weights, rates, num_train, told",
    [
        (True, "0.01", 600, True),
        (True, "0.001", 600, False),
        (True, "0.0001,0.002", 9_999, True),
        (True, "0.01", 10_000, False),
        (False, "0.01", 600, False),
    ],
)
def test_rates_too_high_for_few_pictures_are_told_of_weights_that_came(weights, rates, num_train, told):
    phases = "self_studying" if "," not in rates else "self_studying,tutoring"
    options = [
        f"--phases={phases}",
        f"--epochs={','.join('1' for _ in phases.split(','))}",
        f"--learning_rates={rates}",
    ]
    options += ["--teacher=resnet20", "--teacher_pixel_mean=0", "--teacher_pixel_std=1"]
    options += ["--student_weights=w.h5", "--student_weights_mean=0", "--student_weights_std=1"] if weights else []
    with saved_flags():
        flags.FLAGS(["preflight", "--run_dir=runs/x", *options])
        experiment = flags.experiment_from_flags()
    notes = preflight.few_pictures_notes(experiment, num_train)
    assert len(notes) == told and all(f"{num_train:,} training images" in n and "0.001" in n for n in notes)
