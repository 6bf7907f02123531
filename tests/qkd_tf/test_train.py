"""The command: one small run, and users' mistakes, each answered with one line."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tflite_export
from qkd_tf import data, flags
from qkd_tf.data import pipeline
from qkd_tf.experiment import DataSpec, NetworkSpec, PixelNormalization
from qkd_tf.models import weights, zoo
from qkd_tf.storage import folder_lock
from qkd_tf.storage.saved_model import load_model
from qkd_tf.train import job
from qkd_tf.train.__main__ import main
from tests.saved_flags import saved_flags

DIGITS = ("--dataset=digits", "--student=convnet_small", "--student_pixel_mean=0", "--student_pixel_std=128")
RAW_PIXELS = ["--student_weights_mean=0", "--student_weights_std=1"]
ONE_PHASE = ("--phases=self_studying", "--epochs=1")
FROM_FLOAT = ("--phases=full_precision,self_studying", "--epochs=1,1")
AUTO = ("--bits=auto", "--target=microcontroller")
PUBLISHED = pathlib.Path(__file__).parents[3] / "shared" / "models" / "resnet20.npz"


def start(*arguments):
    """What `python -m qkd_tf.train` does, in this process."""
    with saved_flags():
        flags.FLAGS(["train", *arguments])
        main(["train"])


def complaint(*arguments):
    with pytest.raises(SystemExit) as caught:
        start(*arguments)
    message = caught.value.code  # a string: Python prints it to stderr and exits with 1
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_a_refusal_by_the_export_is_told_ahead_with_what_to_do():
    with saved_flags():
        flags.FLAGS(["train", *DIGITS, "--run_dir=runs/x", "--bits=w4a4", "--target=microcontroller"])
        experiment = flags.experiment_from_flags()
    found = {"num_images": 240, "top1": 90.83, "student_top1": 95.83, "only_student_right": 13, "only_file_right": 1}
    note = job._note_on_gate(experiment, {**found, "p": 0.00092})
    assert note.startswith("note: the export will refuse this file: of 240 images 13 are right only in floating point")
    assert " p = 0.00092; train with activations of 8 bits, which cost no flash: python -m qkd_tf.train " in note
    assert job._note_on_gate(experiment, {**found, "p": 0.0011}) == ""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of one epoch a phase."""
    folder = tmp_path_factory.mktemp("train") / "run"
    start(
        *DIGITS,
        f"--run_dir={folder}",
        "--teacher=convnet_small",
        "--phases=full_precision,self_studying,tutoring",
        "--epochs=1,1,1",
        "--learning_rates=0.05,0.01,0.01",
        "--batch_size=128",
    )
    return folder


def test_run_folder_holds_what_was_promised(run_dir):
    names = {file.name for file in run_dir.iterdir()}
    assert names >= {"flags.txt", "results.json", "checkpoints", "logs", "full_precision", "handoff"}


def test_results_tell_the_phases_in_order_and_the_handoffs_top1(run_dir):
    results = json.loads((run_dir / "results.json").read_text())
    assert [phase["phase"] for phase in results["phases"]] == ["full_precision", "self_studying", "tutoring"]
    codes, labels = (np.load(run_dir / "handoff" / f"{name}.npy") for name in ("student_logits", "test_labels"))
    assert results["student"]["real_numbers_top1"] == pytest.approx(100 * np.mean(codes.argmax(-1) == labels))
    with np.load(run_dir / "handoff" / "integer_logits.npz") as integers:
        codes = integers["litert"]
    assert results["student_test_top1"] == pytest.approx(100 * np.mean(codes.argmax(-1) == labels))
    assert results["student"]["judge"] == "litert"
    assert results["data"]["num_test"] == len(labels) == 360


@pytest.mark.slow
@pytest.mark.parametrize("role, mean, std", [("student", 0.0, 128.0), ("teacher", 128.0, 64.0)])
def test_networks_of_full_precision_are_kept_for_other_runs(run_dir, role, mean, std):
    """As weights of the same network, and as a model of one's own."""
    path = run_dir / "full_precision" / f"{role}.keras"
    spec = NetworkSpec("convnet_small", PixelNormalization((mean,), (std,)), str(path))
    network = zoo.build(spec, (8, 8, 1), 10)
    assert weights.load(network, spec) == []
    images, labels = (np.load(run_dir / "handoff" / f"test_{what}.npy") for what in ("images", "labels"))
    logits = network.predict(images, verbose=0)
    np.testing.assert_array_equal(load_model(path).predict(images, verbose=0), logits)
    phase = json.loads((run_dir / "results.json").read_text())["phases"][0]
    assert phase[f"{role}_test_top1"] == pytest.approx(100 * np.mean(logits.argmax(-1) == labels))


def test_calibration_alone_uses_the_whole_grid_for_every_channel(tmp_path):
    """The handoff holds the equalized channels, each up to the end of its 4 bits; logits have no BatchNormalization."""
    start(*DIGITS, "--phases=", "--interval_init=minmax", "--max_eval_images=32", f"--run_dir={tmp_path / 'run'}")
    with np.load(tmp_path / "run" / "handoff" / "weights.npz") as weights:
        largest = {name: np.abs(weights[name]).reshape(-1, weights[name].shape[-1]).max(axis=0) for name in weights}
    assert {name for name, sizes in largest.items() if np.all(sizes == 7)} == {"conv2", "conv3", "conv4"}
    assert np.all(largest["conv1"] == 127) and not np.all(largest["logits"] == 127)


def test_flags_txt_starts_the_finished_run_again_and_nothing_is_computed(run_dir, capsys, monkeypatch):
    results = json.loads((run_dir / "results.json").read_text())
    monkeypatch.setattr(job.Trainer, "run", None)
    monkeypatch.setattr(job.handoff, "write", None)
    start(f"--flagfile={run_dir / 'flags.txt'}")
    told = capsys.readouterr().out
    assert f"note: {run_dir} is finished already: nothing is left to train" in told
    assert f"test top-1 as the file computes it: {results['student_test_top1']:.2f} %" in told
    assert f"python -m tflite_export --run_dir={run_dir}" in told


@pytest.mark.slow
def test_damaged_handoff_of_a_finished_run_is_written_again(run_dir, tmp_path, capsys, monkeypatch):
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied)
    logits = copied / "handoff" / "student_logits.npy"
    written = logits.read_bytes()
    logits.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    monkeypatch.setattr(job.Trainer, "_run_phase", None)
    start(f"--flagfile={run_dir / 'flags.txt'}", f"--run_dir={copied}")
    assert f"note: {copied} is finished already: nothing is left to train" in capsys.readouterr().out
    assert logits.read_bytes() == written


@pytest.mark.slow
def test_finished_run_whose_checkpoints_were_deleted_is_not_trained_again(run_dir, tmp_path, capsys, monkeypatch):
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied, ignore=shutil.ignore_patterns("checkpoints", "logs"))
    before = {file: file.stat().st_mtime_ns for file in (copied / "handoff").rglob("*")}
    monkeypatch.setattr(job.Trainer, "run", None)
    start(f"--flagfile={run_dir / 'flags.txt'}", f"--run_dir={copied}")
    told = capsys.readouterr().out
    assert f"note: {copied} is finished, and its checkpoints are gone, so nothing is trained; " in told
    assert f"python -m tflite_export --run_dir={copied}" in told
    assert {file: file.stat().st_mtime_ns for file in (copied / "handoff").rglob("*")} == before


def test_another_experiment_in_the_same_folder_is_refused(run_dir):
    before = {file: file.stat().st_mtime_ns for file in run_dir.rglob("*")}
    message = complaint(f"--flagfile={run_dir / 'flags.txt'}", "--weight_bits=3")
    assert "--weight_bits" in message
    assert {file: file.stat().st_mtime_ns for file in run_dir.rglob("*")} == before


@pytest.mark.slow
def test_a_trial_of_streamed_imagenet_says_what_it_is(imagenet_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    start(
        *("--dataset=imagenet2012", f"--data_dir={imagenet_dir}", "--image_size=16", "--student=convnet_small"),
        *("--max_steps=2", "--max_eval_images=5", "--validation_fraction=0.2", "--batch_size=8"),
        *(*ONE_PHASE, f"--run_dir={tmp_path / 'run'}"),
    )
    assert "test, validation, train of imagenet2012 would take more than 0 GiB" in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["data"]["num_train"], results["data"]["num_test"], results["data"]["digested"]) == (32, 5, 5)
    assert (results["experiment"]["data"]["max_steps"], results["experiment"]["data"]["max_eval_images"]) == (2, 5)
    assert np.load(tmp_path / "run" / "handoff" / "test_images.npy").shape == (5, 16, 16, 3)


@pytest.mark.slow
@pytest.mark.parametrize("cache_bytes, looks", [(0, 1 + 3 + 1), (pipeline.CACHE_BYTES, 1)])
def test_test_split_is_decoded_once_for_all_networks_that_look_at_it(tmp_path, monkeypatch, cache_bytes, looks):
    """For its digest, at the end of each of three phases, and for the handoff; once, where it fits in memory."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", cache_bytes)
    pipelines, decoded = data.pipelines, []

    def counting(source, spec, *augmentation):
        def decode(stored):
            tf.numpy_function(lambda: decoded.append(1), [], [])
            return source.test.decode(stored)

        return pipelines(
            dataclasses.replace(source, test=dataclasses.replace(source.test, decode=decode)), spec, *augmentation
        )

    monkeypatch.setattr(data, "pipelines", counting)
    start(
        *("--dataset=digits", "--student=convnet_small", "--teacher=convnet_small", "--allow_weak_teacher"),
        *("--phases=self_studying,co_studying,tutoring", "--epochs=1,1,1", "--learning_rates=0.01"),
        *("--max_steps=1", "--max_eval_images=50", "--batch_size=20", f"--run_dir={tmp_path / 'run'}"),
    )
    assert len(decoded) == looks * 50
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [("teacher_test_top1" in phase) for phase in results["phases"]] == [False, True, True]


@pytest.fixture
def no_training(monkeypatch):
    """A mistake must be found before the first step."""

    def run(self):
        pytest.fail("training has begun")

    monkeypatch.setattr(job.Trainer, "run", run)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "arguments, part",
    [
        ([*ONE_PHASE, "--student=resnet19"], "did you mean resnet18?"),
        ([*ONE_PHASE, "--teacher=nobody"], "--teacher 'nobody'"),
        ([*ONE_PHASE, "--weight_bits=1"], "--weight_bits=1"),
        ([*ONE_PHASE, "--activation_bits=9"], "--activation_bits=9"),
        (["--phases=co_studying", "--epochs=1"], "--teacher"),
        (["--phases=self_studying", "--epochs=1,2"], "--epochs"),
        ([*ONE_PHASE, "--dataset=no_such_set"], "no_such_set"),
        ([*ONE_PHASE, "--dataset=cifar10", "--data_dir=/nowhere"], "/nowhere"),
        ([*ONE_PHASE, "--dataset=folder:/nowhere"], "/nowhere is not a folder"),
        ([*ONE_PHASE, "--batch_size=5000"], "--batch_size=5000"),
        ([*ONE_PHASE, "--student_weights=/gone.h5", *RAW_PIXELS], "/gone.h5"),
        ([*ONE_PHASE, "--student_pixel_mean=12.5"], "--student_pixel_mean=12.5"),
        ([*ONE_PHASE, "--validation_fraction=0.0001"], "--validation_fraction"),
        ([*ONE_PHASE, *AUTO, "--max_flash_bytes=9000"], "this one begins with random weights; give --student_weights"),
        ([*FROM_FLOAT, *AUTO, "--max_flash_bytes=900"], "--max_flash_bytes=900 is too little: --bits=auto needs"),
    ],
)
def test_a_users_mistake_is_one_line_and_nothing_is_written(tmp_path, arguments, part):
    assert part in complaint(*DIGITS, f"--run_dir={tmp_path / 'run'}", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_training")
@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"no {PUBLISHED}")
def test_weights_of_another_network_are_refused_by_their_names(tmp_path):
    message = complaint(
        *DIGITS, *ONE_PHASE, f"--student_weights={PUBLISHED}", *RAW_PIXELS, f"--run_dir={tmp_path / 'run'}"
    )
    assert "layer3.2.conv2" in message
    assert not list(tmp_path.iterdir())


UNNAMED = """
from tf_keras import Sequential, layers

def build(input_shape, num_classes):
    return Sequential([
        layers.Input(input_shape), layers.Rescaling(1 / 128), layers.Conv2D(8, 3, 2), layers.BatchNormalization(),
        layers.ReLU(), layers.Conv2D(16, 3), layers.ReLU(), layers.Flatten(), layers.Dropout(0.2),
        layers.Dense(num_classes),
    ])
"""


@pytest.fixture
def auto(tmp_path, monkeypatch):
    """The flags of a run that finds its widths; a builder's layers have other names at each call."""
    (tmp_path / "unnamed.py").write_text(UNNAMED)
    monkeypatch.syspath_prepend(tmp_path)
    return [
        *("--dataset=digits", "--student=unnamed:build", *FROM_FLOAT, *AUTO, "--max_flash_bytes=3600"),
        *("--max_steps=2", "--batch_size=32", "--max_eval_images=64"),
    ]


@pytest.mark.slow
def test_a_file_of_the_widths_that_are_found_is_within_the_budget(auto, tmp_path, capsys):
    start(*auto, f"--run_dir={tmp_path / 'run'}")
    assert "rules for 3,600 bytes: at most " in capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    widths = [row["num_bits"] for row in results["coverage"] if row["tensor"] == "kernel"]
    assert widths == results["experiment"]["quantization"]["found_bits"] and set(widths) == {4, 8}
    exported = tflite_export.export(tmp_path / "run", runtimes=())
    assert exported.passed and exported.tflite.stat().st_size <= exported["max_flash_bytes"] == 3600
    assert "within --max_flash_bytes=3,600: " in capsys.readouterr().out
    assert "widths that were found" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_was_stopped_behind_its_widths_does_not_find_them_again_and_is_the_uninterrupted_one(
    auto, tmp_path, monkeypatch
):
    runs = [tmp_path / name for name in ("whole", "stopped")]
    start(*auto, f"--run_dir={runs[0]}")
    with monkeypatch.context() as patched:
        patched.setattr(job, "run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            start(*auto, f"--run_dir={runs[1]}")
    monkeypatch.setattr(job, "find_bits", None)  # it is done
    start(f"--flagfile={runs[1] / 'flags.txt'}")
    whole, stopped = ([*np.load(run / "handoff" / "weights.npz").values()] for run in runs)
    assert all(np.array_equal(*pair) for pair in zip(whole, stopped, strict=True))


@pytest.mark.slow
def test_full_precision_trains_a_saved_student_from_its_weights(tmp_path, capsys):
    pixels = tf_keras.Input((8, 8, 1))
    x = tf_keras.layers.Flatten()(tf_keras.layers.Rescaling(1 / 16)(pixels))
    model = tf_keras.Model(pixels, tf_keras.layers.Dense(10, name="logits")(x), name="mine")
    model.save(tmp_path / "new.keras")
    start(
        "--dataset=digits",
        f"--student={tmp_path / 'new.keras'}",
        *FROM_FLOAT,
        "--learning_rates=0.001,0.01",
        "--max_steps=2",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert "note: full_precision trains mine further, from the weights that it came with" in capsys.readouterr().out
    trained = tf_keras.models.load_model(tmp_path / "run" / "full_precision" / "student.keras").get_layer("logits")
    moved = np.abs(trained.kernel.numpy() - model.get_layer("logits").kernel.numpy()).max()
    assert 1e-6 < moved < 0.05  # which are the file's, and have learned a little
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["full_precision"]["origin"] == "trained" and "student_loss" in results["phases"][0]["history"][0]


@pytest.mark.usefixtures("no_training")
def test_normalization_of_another_number_of_channels_is_refused(tmp_path):
    """Digits have one channel: a teacher that is given three values would be another network than was named."""
    three = ("--teacher=convnet_small", "--teacher_pixel_mean=1,2,3", "--teacher_pixel_std=4,5,6")
    message = complaint(
        *DIGITS, "--phases=full_precision,tutoring", "--epochs=1,1", *three, f"--run_dir={tmp_path / 'run'}"
    )
    assert "pixel means for 3 channels, the images have 1" in message


SMALL = (*DIGITS, *ONE_PHASE)


@pytest.mark.usefixtures("no_training")
def test_a_second_process_in_the_same_folder_is_refused(tmp_path):
    with folder_lock.locked(tmp_path / "run"):
        message = complaint(*SMALL, f"--run_dir={tmp_path / 'run'}")
    assert f"{tmp_path / 'run'} is in use by process {os.getpid()}; wait" in message
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    "number, code, saved, told",
    [
        (signal.SIGTERM, 143, "run/checkpoints/7", "the same command resumes from the last checkpoint"),
        (signal.SIGINT, 130, "other", "the same command starts again: there is no checkpoint yet"),
    ],
)
def test_signal_ends_in_one_line_that_says_how_to_go_on(tmp_path, monkeypatch, capsys, number, code, saved, told):
    def run(*_):
        (tmp_path / saved).mkdir(parents=True)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(job, "run", run)
    with pytest.raises(SystemExit) as caught:
        start(*SMALL, f"--run_dir={tmp_path / 'run'}")
    assert caught.value.code == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stopped by SIG")]
    assert line.endswith(told)


@pytest.mark.parametrize(
    "error, told",
    [
        (
            OSError("x/checkpoints/a cannot be written: No space\n left"),
            "x/checkpoints/a cannot be written: No space left;",
        ),
        (OSError(30, "Read-only file system", "x/flags.txt.part"), "x/flags.txt.part: Read-only file system;"),
    ],
)
def test_a_disk_that_refuses_is_one_line(tmp_path, monkeypatch, error, told):
    def refuse(*_):
        raise error

    monkeypatch.setattr(job, "run", refuse)
    message = complaint(*SMALL, f"--run_dir={tmp_path / 'run'}")
    assert told in message and message.endswith(
        "; fix that, and the same command starts again: there is no checkpoint yet"
    )


def test_command_exits_with_one_line_and_without_traceback(tmp_path):
    command = [sys.executable, "-m", "qkd_tf.train", *DIGITS, *ONE_PHASE, "--student=resnet19", "--run_dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: unknown --student 'resnet19'")]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.fixture
def streamed(monkeypatch):
    """Nothing fits in memory, and two examples are looked at beforehand."""
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    monkeypatch.setattr(pipeline, "DIGESTED", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("streamed")
def test_label_deep_in_a_streamed_split_ends_training_in_a_line(tmp_path, monkeypatch):
    opened = data.open_source(DataSpec("digits"))

    def with_strange_label(spec):
        def read(seed):
            return opened.train.read(seed).enumerate().map(
                lambda number, example: (example[0], tf.where(number == 300, np.int64(10), example[1]))
            )  # fmt: skip

        return dataclasses.replace(opened, train=dataclasses.replace(opened.train, read=read))

    monkeypatch.setattr(data, "open_source", with_strange_label)
    message = complaint(*DIGITS, *ONE_PHASE, f"--run_dir={tmp_path}/run", "--batch_size=64")
    assert message == (
        "error: digits cannot be read: assertion failed: [the train split of digits has the label] [10]; "
        "prepare the set again, or repair the file"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("streamed")
def test_picture_that_cannot_be_decoded_ends_training_in_a_line(tmp_path, monkeypatch):
    opened = data.open_source(DataSpec("digits"))

    def decode(image):
        return tf.cond(tf.reduce_sum(tf.cast(image, tf.int32)) % 97 == 0, lambda: image[1:], lambda: image)

    broken = dataclasses.replace(opened, train=dataclasses.replace(opened.train, decode=decode))
    monkeypatch.setattr(data, "open_source", lambda spec: broken)
    message = complaint(*DIGITS, *ONE_PHASE, f"--run_dir={tmp_path}/run", "--batch_size=64")
    assert "digits cannot be read: " in message and "shape" in message
