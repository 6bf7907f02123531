"""What flags and files tell is told before TensorFlow is imported, which takes seconds."""

import functools
import json
import pathlib
import subprocess
import sys

import pytest

from qkd_tf.commands import COMMANDS
from qkd_tf.storage.folder_lock import locked

ROOT = pathlib.Path(__file__).parents[1]

# Command and flags -> how it ends.
MISTAKES = {
    ("qkd_tf.train", "--no_such_flag=1"): "Unknown command line flag 'no_such_flag'",
    ("qkd_tf.train", "--run_dir=RUN", "--weight_bits=1"): "--weight_bits=1 is out of range",
    ("qkd_tf.train", "--run_dir=RUN", "--student=resnet9"): "unknown --student 'resnet9'",
    ("qkd_tf.train", "--run_dir=RUN", "--student=gone.keras"): "no model at gone.keras",
    ("qkd_tf.train", "--run_dir=RUN", "--student=gone.keras", "--student_weights=x.h5"): "no model at gone.keras",
    ("qkd_tf.train", "--run_dir=RUN", "--student=net.tflite"): "--student=net.tflite is a finished file",
    ("qkd_tf.train", "--run_dir=RUN", "--teacher=RUN/net.tflite"): "net.tflite is a finished file, which cannot be",
    ("qkd_tf.new", "--student=./net.tflite", "--dataset=digits", "--output=RUN.flags"): "net.tflite is a finished file",
    ("qkd_tf.train", "--run_dir=RUN", "--student=./w.npz"): "--student=NAME --student_weights=./w.npz",
    ("qkd_tf.train", "--run_dir=RUN", "--teacher=w.NPZ"): "--teacher=NAME --teacher_weights=w.NPZ",
    ("qkd_tf.preflight", "--student=/my/net.pth", "--dataset=digits"): "is a PyTorch file, which cannot be read; build",
    ("qkd_tf.new", "--student=my/net.onnx", "--dataset=digits", "--output=RUN.flags"): "is a network in ONNX, which",
    ("qkd_tf.train", "--run_dir=RUN", "--student=net.zip"): "--student=net.zip is an archive; unpack it, and give a ",
    ("qkd_tf.train", "--run_dir=RUN", "--student=tests/docs"): "is a folder without saved_model.pb; give a .keras or",
    (
        "qkd_tf.train",
        "--run_dir=RUN",
        "--student=resnet8",
        "--student_weights=README.md",
        "--student_weights_mean=0",
        "--student_weights_std=1",
    ): "weights README.md have an unknown ending; known are .weights.h5, .h5, .keras, .npz",
    ("qkd_tf.train", "--run_dir=BUSY", "--dataset=digits"): "/busy is in use by process ",
    ("qkd_tf.train", "--run_dir=RUN", "--dataset=folder:/nowhere"): "/nowhere is not a folder",
    ("qkd_tf.train", "--run_dir=RUN", "--dataset=/my/pictures"): "--dataset=folder:/my/pictures",
    ("qkd_tf.preflight", "--dataset=./arrays.npz"): "--dataset=npz:./arrays.npz",
    ("qkd_tf.new", "--student=resnet8", "--dataset=PICTURES/", "--output=RUN.flags"): "--dataset=folder:PICTURES/",
    ("qkd_tf.train", "--run_dir=RUN", "--dataset=npz:gone.npz"): "gone.npz is not a file",
    ("qkd_tf.train", f"--run_dir={__file__}"): "is a file; give a folder",
    ("qkd_tf.preflight", "--dataset=folder:/nowhere"): "/nowhere is not a folder",
    ("qkd_tf.preflight", "--teacher=resnet9"): "unknown --teacher 'resnet9'",
    ("qkd_tf.new", "--student=resnet8"): "--dataset is missing",
    ("qkd_tf.new", "--student=resnet9", "--dataset=digits", "--output=RUN.flags"): "unknown --student 'resnet9'",
    (
        "qkd_tf.new",
        "--student=resnet8",
        "--dataset=folder:tests/docs",
        "--output=RUN.flags",
    ): "no class folder",
    ("qkd_tf.train", "--run_dir=RUN", "--dataset=folder:tests"): "tests has no folder test",
    ("tflite_export", "--target=watch"): "value should be one of <phone|",
    ("tflite_export", "--run_dir=gone"): "there is no folder gone; give the folder of a finished run",
    ("tflite_export", "--run_dir=OLDER"): "/oldER; did you mean ",
    ("tflite_export", "--run_dir=OLD"): "has no results.json",
    ("tflite_export", "--run_dir=OLD/handoff/export"): "/handoff/export is a part of the run ",
    ("tflite_export", "--run_dir=gone", "--min_top1_agreement=1"): "--min_top1_agreement was removed",
    ("tflite_export.verify", "--tflite=gone.tflite", "--handoff=gone"): "--tflite=gone.tflite is not a file",
    ("qkd_tf.sensitivity",): "--run_dir is missing",
    ("qkd_tf.sensitivity", "--run_dir=gone"): "--run_dir=gone is not a run",
    ("qkd_tf.sensitivity", "--run_dir=OLD", "--try_bits=4,9"): "--try_bits=9 is out of range",
    ("qkd_tf.sensitivity", "--run_dir=OLD", "--output=new.flags"): "--output=new.flags needs a budget",
    ("qkd_tf.sensitivity", "--run_dir=OLD"): "handoff has no manifest.json",
    ("qkd_tf.data.prepare",): "error: the following arguments are required: name; --help shows what it takes",
    ("qkd_tf.data.prepare", "cifar10", "--manual_dir=gone"): "--manual_dir=gone is not a folder",
    ("qkd_tf.ablation", "--rows=none", "--run_dir=RUN"): "unknown --rows 'none'",
    ("qkd_tf.compare", "gone"): "gone",
    ("qkd_tf.doctor", "--no_such_flag"): "error: unrecognized arguments: --no_such_flag",
    # Nothing is wrong: now TensorFlow is needed.
    ("qkd_tf.train", "--run_dir=RUN", "--dataset=digits"): "tensorflow",
    ("qkd_tf.data.prepare", "cifar10"): "tensorflow",
}

# Reads commands, a JSON list each, and prints how each of them ends where nothing can import TensorFlow.
SCRIPT = """
import json, sys
sys.modules["tensorflow"] = sys.modules["tf_keras"] = None
from tests.in_process import start
for module, *arguments in json.loads(sys.argv[1]):
    try:
        start(module, arguments)
    except BaseException as end:
        print("ended:", json.dumps(str(end)))
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    (folder / "old" / "handoff").mkdir(parents=True)
    (folder / "old" / "handoff" / "results.json").touch()
    (folder / "old" / "flags.txt").write_text("--dataset=digits\n--student=resnet8\n--run_dir=old")
    paths = {"RUN": str(folder / "run"), "OLD": str(folder / "old"), "BUSY": str(folder / "busy")}
    commands = [[_with(paths, part) for part in command] for command in MISTAKES]
    with locked(folder / "busy"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, check=True
        )
    ends = [json.loads(line[len("ended: ") :]) for line in done.stdout.splitlines() if line.startswith("ended: ")]
    return dict(zip(MISTAKES, ends, strict=True))


def _with(paths, part):
    return functools.reduce(lambda text, name: text.replace(name, paths[name]), paths, part)


@pytest.mark.parametrize("command", MISTAKES, ids=" ".join)
def test_mistake_is_told_without_tensorflow(ends, command):
    assert MISTAKES[command] in ends[command]


def test_every_command_of_the_package_is_tried():
    assert {command.module for command in COMMANDS.values()} == {module for module, *_ in MISTAKES}
