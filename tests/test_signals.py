"""Signals from the command line: float features of a file, from the pre-flight to a file that is proven."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from tf_keras import layers

from qkd_tf import fit
from tests.in_process import start

SHAPE = (16, 3)


def waves(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Series of three speeds, float32."""
    random, labels = np.random.default_rng(seed), np.arange(number) % 3
    turns = np.arange(16)[:, np.newaxis] * (1 + labels[:, np.newaxis, np.newaxis]) / 2
    series = np.sin(turns + random.uniform(0, 6, (number, 1, 3))) + random.normal(0, 0.1, (number, *SHAPE))
    return (series - 0.4).astype(np.float32), labels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a set, of a model and of a run that was trained and exported by commands."""
    folder = tmp_path_factory.mktemp("signals")
    (x_train, y_train), (x_test, y_test) = waves(120, 0), waves(60, 1)
    np.savez(folder / "set.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    normalization = layers.Normalization()
    normalization.adapt(x_train)
    tf_keras.Sequential(
        [layers.Input(SHAPE), normalization, layers.Conv1D(8, 5, activation="relu"), layers.GlobalAveragePooling1D(),
         layers.Dense(3)], name="net"
    ).save(folder / "net.keras")  # fmt: skip
    flags = [
        f"--dataset=npz:{folder / 'set.npz'}", f"--student={folder / 'net.keras'}", "--phases=self_studying",
        "--epochs=8", "--learning_rates=0.2", "--batch_size=16", "--target=microcontroller",
    ]  # fmt: skip
    start("qkd_tf.preflight", flags)
    start("qkd_tf.train", [*flags, f"--run_dir={folder / 'run'}"])
    start("tflite_export", [f"--run_dir={folder / 'run'}"])
    return folder


def test_the_pre_flight_speaks_of_examples(run, capsys):
    start("qkd_tf.preflight", [f"--dataset=npz:{run / 'set.npz'}", f"--student={run / 'net.keras'}"])
    told = capsys.readouterr().out
    assert "training examples" in told and not re.search(r"\b(image|picture)s?\b", told)


def results_of(run):
    return json.loads((run / "run" / "results.json").read_text())


def test_the_file_is_proven_and_its_input_has_what_was_chosen_from_the_training_set(run):
    verification = json.loads((run / "run" / "export" / "verification.json").read_text())
    assert verification["passed"] and results_of(run)["student_test_top1"] > 60
    chosen = results_of(run)["data"]["input"]
    interpreter = Interpreter(str(run / "run" / "export" / "model.tflite"))
    (entry,) = interpreter.get_input_details()
    assert entry["shape"].tolist() == [1, *SHAPE]
    assert entry["quantization"] == (np.float32(chosen["scale"]), chosen["zero_point"] - 128)


def test_features_by_the_bundles_words_are_those_of_the_handoff(run):
    features, _ = waves(60, 1)
    chosen = results_of(run)["data"]["input"]
    scale, zero_point = np.float32(chosen["scale"]), chosen["zero_point"] - 128
    integers = np.clip(np.rint(features / scale) + zero_point, -128, 127).astype(np.int8)
    handed_over = np.load(run / "run" / "handoff" / "test_images.npy")
    np.testing.assert_array_equal(integers, handed_over.astype(int) - 128)
    micro = run / "run" / "export" / "micro"
    readme = (micro / "README.md").read_text()
    for name in ("README.md", "main.cc", "golden.h", "classifier.h", "model.h"):
        assert not re.search("image|picture", (micro / name).read_text(), re.IGNORECASE), name
    assert f"integer = round(feature / {float(scale)!r}) + {zero_point}, clipped to -128 … 127" in readme
    assert "Pixels" not in readme and "picture" not in readme


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_bundles_function_puts_features_on_the_same_integers(run, tmp_path):
    features, _ = waves(60, 1)
    features = np.concatenate([features.ravel(), [-1e9, 1e9, 0.0]]).astype(np.float32)
    (tmp_path / "main.cc").write_text(
        '#include <cstdio>\n#include "model.h"\nint main() {\n  float feature;\n'
        '  while (std::fread(&feature, 4, 1, stdin)) std::printf("%d ", classifier::Quantized(feature));\n}\n'
    )
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{run / 'run' / 'export' / 'micro'}"]
    subprocess.run([*command, "main.cc", "-o", "main"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], input=features.tobytes(), capture_output=True, check=True).stdout
    handed_over = np.load(run / "run" / "handoff" / "test_images.npy").ravel().astype(int) - 128
    zero_point = results_of(run)["data"]["input"]["zero_point"] - 128
    assert list(map(int, printed.split())) == [*handed_over, -128, 127, zero_point]


def test_runs_on_signals_are_compared(run, capsys):
    start("qkd_tf.compare", [str(run / "run")])
    assert "60 test images" in capsys.readouterr().out


def test_each_layer_is_tried_at_other_widths(run, capsys):
    start("qkd_tf.sensitivity", [f"--run_dir={run / 'run'}", "--try_bits=2"])
    assert re.search(r"^\| conv1d\w* \| 2 \|", capsys.readouterr().out, re.MULTILINE)


def test_a_budget_becomes_a_flag_file_and_the_next_command_unless_the_run_is_within_it(run, capsys):
    call = [f"--run_dir={run / 'run'}", "--try_bits=2", f"--output={run / 'small.flags'}"]
    start("qkd_tf.sensitivity", [*call, "--max_weight_bytes=1000000"])
    assert "no rule is needed: the run fits as it is\n" in (told := capsys.readouterr().out)
    assert told.endswith(f"small.flags is not written: it would train {run / 'run'} again\n")
    assert not (run / "small.flags").exists()
    size = int(re.search("kernels at their bit widths: ([0-9,]+) bytes", told)[1].replace(",", ""))
    start("qkd_tf.sensitivity", [*call, f"--max_weight_bytes={size - 1}"])
    assert "--bits_rule='" in (told := capsys.readouterr().out)
    assert told.endswith(f"next: python -m qkd_tf.train --flagfile={run / 'small.flags'}\n")
    assert f"--run_dir={run / 'small'}\n" in (run / "small.flags").read_text()


def test_bits_beside_the_widths_of_a_run_take_their_place(run, capsys):
    start("qkd_tf.sensitivity", [f"--run_dir={run / 'run'}", "--bits=w8a8", "--try_bits=4"])
    assert "kernels at their bit widths: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--crop_padding=1"], "--crop_padding: only for pictures"),
        (["--student_pixel_mean=128"], "--student_pixel_mean and --student_pixel_std are for pixels"),
        (["--input_scale=0"], "--input_scale=0.0: a positive, finite number is expected"),
        (["--student=resnet8"], "resnet8 reads pictures or maps"),
    ],
)
def test_flags_that_do_not_fit_end_the_command_with_a_line(run, flags, message):
    given = [f"--dataset=npz:{run / 'set.npz'}", f"--student={run / 'net.keras'}", "--phases="]
    with pytest.raises(SystemExit, match=message):
        start("qkd_tf.preflight", [*given, *flags])


def ridges(number, seed):
    """Signals of mean -20 and deviation 8, with a ridge in one of three bands."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    features = rng.normal(-20, 8, (number, 12, 9, 1)).astype(np.float32)
    for index, label in enumerate(labels):
        features[index, :, 3 * label : 3 * label + 3] += 6
    return features, labels


@pytest.mark.slow
def test_a_network_that_padded_the_mean_trains_as_one_that_pads_0(tmp_path, capsys):
    """In a file padding is 0, here 2.5 deviations from the mean: BatchNorm statistics would fit no longer."""
    tf_keras.utils.set_random_seed(0)
    normalization = layers.Normalization(axis=None, mean=-20.0, variance=64.0)
    body = [layers.Conv2D(8, 7, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = tf_keras.Sequential([layers.Input((12, 9, 1)), normalization, *body, *head])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, ["accuracy"])
    model.fit(*ridges(600, 0), epochs=12, verbose=0)
    own = model.evaluate(*ridges(150, 1), verbose=0)[1]
    run = fit(model, ridges(600, 0), ridges(150, 1), run_dir=tmp_path / "run", phases={"self_studying": 4}, bits="w4a8")
    results = json.loads((run.path / "results.json").read_text())
    told = capsys.readouterr().out
    assert results["as_given"]["student"]["border_top1_agreement"] < 95
    assert "note: padding by 0 instead of the mean leaves the class of only" in told
    assert results["student_test_top1"] > 100 * own - 8
    assert results["full_precision"]["test_top1"] == pytest.approx(
        100 * own
    )  # the user's, not what training began with
