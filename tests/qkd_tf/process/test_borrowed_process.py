"""`fit` and `export` leave the process as they found it, and however they find it they do what commands do."""

import contextlib
import json
import logging
import os
import pathlib
import platform
import random
import re
import signal
import subprocess
import sys
import threading
import warnings

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from absl import flags
from tensorflow.python.eager import context
from tensorflow.python.framework import config
from tf_keras import layers, mixed_precision
from tf_keras.src import backend

import qkd_tf
from qkd_tf.experiment import ExperimentError
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.train import job
from tflite_export import export

ROOT = pathlib.Path(__file__).parents[3]
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
SET = IMAGES, np.arange(64) % 3
OPTIONS = {"batch_size": 16, "max_steps": 2, "crop_padding": 0, "validation_fraction": 0.25}
OPTIONS |= {"allow_weak_teacher": True}  # of random weights


def network(dropout=0.0):
    """Of the same weights whenever it is made."""
    pixels = tf_keras.Input((8, 8, 1), name="pixels")
    x = layers.Rescaling(1 / 255, name="normalization")(pixels)
    x = layers.Conv2D(4, 3, activation="relu", name="stem")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    model = tf_keras.Model(pixels, layers.Dense(3, name="logits")(x), name="network")
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0.0, 0.5, value.shape) for value in model.get_weights()])
    return model


def fit(run_dir, models=None, **changes):
    """Co-studying: both networks drop out."""
    student, teacher = models or (network(0.2), network(0.3))
    options = {"run_dir": run_dir, "teacher": teacher, "phases": {"co_studying": 2}} | OPTIONS | changes
    with unchanged():
        return qkd_tf.fit(student, SET, SET, **options)


def exported(run):
    """The file and the figures of the report."""
    with unchanged():
        assert export(run, runtimes=())["passed"]
    page = (run.path / "report.html").read_text()
    return (run.path / "export" / "model.tflite").read_bytes(), re.findall("<svg.*?</svg>", page, re.DOTALL)


def told(run):
    """What has to be the same wherever a run was made."""
    weights = np.load(run.path / "handoff" / "weights.npz")
    losses = [row["student_loss"] for phase in run.results["phases"] for row in phase["history"]]
    return [value.tobytes().hex() for value in weights.values()] + losses


def state():
    """Of the process, as far as a call might change it."""
    seeds = context.context()
    generator = vars(backend._SEED_GENERATOR).get("generator")
    loggers = {name: logging.getLogger(name) for name in ("", "absl", "tensorflow", "matplotlib")}
    return {
        "random": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "tensorflow": (seeds._seed, vars(seeds).get("_rng"), "_rng" in vars(seeds) and seeds._rng.getstate()),
        "keras": (generator, generator and generator.getstate()),
        "generators": tf_keras.backend.experimental.is_tf_random_generator_enabled(),
        "determinism": config.is_op_determinism_enabled(),
        "policy": mixed_precision.global_policy().name,
        "numbers": (tf_keras.backend.floatx(), tf_keras.backend.epsilon(), tf_keras.backend.image_data_format()),
        "eager functions": tf.config.functions_run_eagerly(),
        "rewrites": (tf.config.optimizer.get_experimental_options(), tf.config.optimizer.get_jit()),
        "logs": {name: (logger.level, list(logger.handlers)) for name, logger in loggers.items()},
        "verbosity": (flags.FLAGS["verbosity"].value, flags.FLAGS["verbosity"].using_default_value),
        "flags": list(flags.FLAGS),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "files": [os.fstat(number).st_ino for number in (1, 2)],
        "matplotlib": {name: str(dict.__getitem__(matplotlib.rcParams, name)) for name in matplotlib.rcParams},
        "pyplot": "matplotlib.pyplot" in sys.modules,
        "warnings": list(warnings.filters),
        "numpy errors": (np.geterr(), np.get_printoptions()),
        "folder": os.getcwd(),
        "calls": sys.getrecursionlimit(),
    }


@contextlib.contextmanager
def set_by_user():
    """A process in which a user has set what he can."""
    before = tf.config.optimizer.get_experimental_options(), matplotlib.rcParams.copy(), np.geterr()
    tf_keras.utils.set_random_seed(77)
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(None)  # random operations raise now
    mixed_precision.set_global_policy("mixed_float16")
    tf_keras.backend.set_floatx("float64")
    tf_keras.backend.set_image_data_format("channels_first")
    tf.config.run_functions_eagerly(True)
    tf.config.optimizer.set_experimental_options({"constant_folding": False, "auto_mixed_precision": True})
    tf.config.optimizer.set_jit(True)
    matplotlib.rcParams.update({"axes.grid": False, "font.size": 30})
    np.seterr(all="raise")
    try:
        yield
    finally:
        np.seterr(**before[2])
        matplotlib.rcParams.update(before[1])
        tf.config.optimizer.set_jit(False)
        tf.config.optimizer.set_experimental_options({"auto_mixed_precision": None, "constant_folding": None})
        tf.config.run_functions_eagerly(False)
        tf_keras.backend.set_image_data_format("channels_last")
        tf_keras.backend.set_floatx("float32")
        mixed_precision.set_global_policy("float32")
        config.disable_op_determinism()


@contextlib.contextmanager
def unchanged():
    before = state()
    try:
        yield
    finally:
        after = state()
        assert {name: after[name] for name in after if after[name] != before[name]} == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def file(run):
    return exported(run)


# In a process of its own; what it prints is `told`.
ALONE = """
import json, pathlib, sys
from tests.qkd_tf.process import test_borrowed_process as this
print(json.dumps(this.told(this.fit(pathlib.Path(sys.argv[1])))))
"""


@pytest.mark.slow
def test_second_fit_of_a_process_gives_the_bits_of_the_first_one_of_another(tmp_path, run):
    command = [sys.executable, "-c", ALONE, str(tmp_path / "alone")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    np.random.random(5)
    alone = json.loads(done.stdout.splitlines()[-1])
    assert told(run) == alone == told(fit(tmp_path / "second"))


@pytest.mark.slow
def test_random_numbers_go_on_behind_a_fit(tmp_path):
    def draw():
        return random.random(), np.random.random(), float(tf.random.uniform(())), tf_keras.backend.random_uniform(())

    models = network(0.2), network(0.3)
    tf_keras.utils.set_random_seed(5)
    expected = [draw() for _ in range(2)]
    tf_keras.utils.set_random_seed(5)
    first = draw()
    fit(tmp_path / "run", models, phases=[])
    assert [first, draw()] == expected


@pytest.mark.slow
def test_what_a_user_has_set_changes_neither_training_nor_file_and_stays(run, file, tmp_path):
    given = network(0.2), network(0.3)  # a policy is a layer's own; the networks are of float32
    with set_by_user():
        again = fit(tmp_path / "run", given)
        assert told(again) == told(run)
        assert exported(again) == file


@pytest.mark.slow
@pytest.mark.parametrize("error", [ExperimentError("no"), MemoryError(), KeyboardInterrupt()])
def test_process_is_put_back_behind_an_error(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(job.handoff, "write", fail)
    with pytest.raises(type(error)):
        fit(tmp_path / "run", phases=[])
    with unchanged(), pytest.raises(ValueError, match="no results.json"):
        export(tmp_path / "run")


@pytest.mark.slow
def test_fit_and_export_in_a_thread(tmp_path, run, file):
    done = []

    def work():
        made = fit(tmp_path / "run")
        done.extend((told(made), exported(made)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [told(run), file]


def test_threads_take_turns():
    inside, left = threading.Event(), []

    def work():
        with borrowed(1, True):
            inside.set()
            left.append(config.is_op_determinism_enabled())

    with borrowed():
        thread = threading.Thread(target=work)
        thread.start()
        assert not inside.wait(0.2) and not config.is_op_determinism_enabled()
    thread.join()
    assert left == [True] and not config.is_op_determinism_enabled()


def test_levels_that_the_program_chose_are_kept():
    absl = logging.getLogger("absl")
    verbosity = flags.FLAGS["verbosity"]
    before = dict(vars(verbosity)), absl.level
    try:
        verbosity.using_default_value = True
        with borrowed():
            assert absl.level == logging.ERROR
        flags.FLAGS.verbosity = 0
        with borrowed():
            assert absl.getEffectiveLevel() == logging.INFO
    finally:
        vars(verbosity).update(before[0])
        absl.setLevel(before[1])


# Imports what a user's program does; prints what it changes of the environment.
IMPORTS = """
import json, logging, os, random
import matplotlib, numpy as np, tensorflow as tf, tf_keras

def state():
    levels = [logging.getLogger(name).level for name in ("", "absl", "tensorflow")]
    generators = tf_keras.backend.experimental.is_tf_random_generator_enabled()
    return levels, random.getstate(), str(np.random.get_state()), dict(matplotlib.rcParams), generators

environment, before = dict(os.environ), state()
from qkd_tf import fit
from tflite_export import export
assert state() == before
print(json.dumps({name: value for name, value in os.environ.items() if environment.get(name) != value}))
"""


@pytest.mark.slow
def test_importing_changes_only_which_keras_and_kernels_tensorflow_uses():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    kernels = {"TF_ENABLE_ONEDNN_OPTS": "1"} if platform.machine() == "x86_64" else {}
    assert json.loads(done.stdout.splitlines()[-1]) == {"TF_USE_LEGACY_KERAS": "1"} | kernels


def test_kernels_that_the_environment_chose_stay():
    done = subprocess.run(
        [sys.executable, "-c", "import os, qkd_tf; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
    )
    assert done.stdout.split() == ["0"], done.stderr
