"""The table of a student before anything is trained: numbers by hand, refusals, limits, and the command."""

import os
import pathlib
import subprocess
import sys
import time

import pytest
from PIL import Image

from qkd_tf.experiment import QuantizationSpec
from tests.in_process import start

SPEC = QuantizationSpec(weight_bits=3, activation_bits=4)
ROOT = pathlib.Path(__file__).parents[2]


LSTM = """
import tf_keras
def build(input_shape, num_classes):
    pixels = tf_keras.Input(input_shape)
    x = tf_keras.layers.Reshape((input_shape[0] * input_shape[1], input_shape[2]))(pixels)
    x = tf_keras.layers.LSTM(4, name="memory")(x)
    return tf_keras.Model(pixels, tf_keras.layers.Dense(num_classes)(x))
"""


@pytest.mark.slow
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
    assert "layer memory is an LSTM; use convolutions and pooling" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    assert seconds < 20


@pytest.mark.slow
def test_command_prints_the_table_and_reads_no_picture():
    done = subprocess.run(
        [sys.executable, "-m", "qkd_tf.preflight", "--flagfile=configs/demo.flags"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "convnet_small: 16,698 parameters" in done.stdout


def test_a_batch_larger_than_the_set_is_refused_behind_what_the_network_is(capsys):
    arguments = ["--dataset=digits", "--student=convnet_small", "--batch_size=2000"]
    with pytest.raises(SystemExit) as end:
        start("qkd_tf.preflight", arguments)
    assert end.value.code == (
        "error: --batch_size=2000 is more than the 1293 training images of digits; "
        "give a smaller one, such as --batch_size=64"
    )
    assert "convnet_small: 16,698 parameters" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "argument, message",
    [
        (
            "--augment=math:floor",
            "error: --augment=math:floor is called as augment(images, seed), and too many positional arguments; ",
        ),
        ("--class_weights=1,2", "error: --class_weights has 2 numbers and there are 10 classes; "),
    ],
)
def test_training_habits_that_do_not_fit_are_refused(argument, message):
    with pytest.raises(SystemExit) as end:
        start("qkd_tf.preflight", ["--dataset=digits", "--student=convnet_small", argument])
    assert end.value.code.startswith(message) and "\n" not in end.value.code


@pytest.mark.parametrize("run, end", [([], " and --run_dir=runs/NAME"), (["--run_dir=runs/mine"], "")])
def test_the_next_line_asks_for_a_run_folder_only_if_there_is_none(capsys, run, end):
    start("qkd_tf.preflight", ["--dataset=digits", "--student=convnet_small", *run])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: python -m qkd_tf.train with the same flags{end}"


@pytest.mark.slow
def test_pictures_that_have_the_size_already_are_told_before_the_training(tmp_path, capsys):
    for split, number in (("train", 4), ("test", 1)):
        for name, value in (("ant", 0), ("bee", 200)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.new("RGB", (8, 8), (value + index,) * 3).save(folder / f"{index}.png")
    flags = [f"--dataset=folder:{tmp_path}", "--image_size=8", "--batch_size=4", "--validation_fraction=0.25"]
    start("qkd_tf.preflight", [*flags, "--student=convnet_small"])
    told = capsys.readouterr().out
    assert told.count("note: pictures already have 8x8 pixels, and are still enlarged and cropped; ") == 1
    assert told.splitlines()[-1] == "next: python -m qkd_tf.train with the same flags and --run_dir=runs/NAME"
