"""Models that Hypothesis draws (tests/drawn_models.py): each trains and is the same in a file, or is refused in a line.

`make models` runs a campaign with --drawn_models=500 and writes results/drawn_models.json; the suite a small one.
"""

import collections
import contextlib
import dataclasses
import gc
import json
import pathlib
import random
import re
import shutil
import time
import traceback
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from ai_edge_litert.interpreter import Interpreter
from hypothesis import strategies as st
from tf_keras import layers as L

import qkd_tf
import tflite_export
from qkd_tf import networks
from qkd_tf.experiment import TRAINED_IN_MEMORY, ExperimentError, NetworkSpec, PixelNormalization
from qkd_tf.quantization.roles import has_kernel
from tests.drawn_models import PROBABILITIES, Drawn, models, pictures, settle

PIXELS = PixelNormalization((128.0,), (64.0,))
# What rounding explains of float outputs, as a share of the largest, by the least precision a model computes in.
ROUNDING = {"float16": 0.02, "bfloat16": 0.15, "float32": 2e-3}
# What 8 bits may change of the outputs of a shallow network on the pictures that it was calibrated on, as a share of
# them all, by their root mean squares. A kernel adds about a hundredth where its output fills the grid; what is more
# comes of logits that are small differences of large numbers. Another reading of pixels, padding or an activation
# function has made 0.25 to 3.66 (and is looked for in float, too, where rounding is all that is allowed).
QUANTIZATION, SHALLOW = 0.3, 4
TRAINING_SHARE, TFLM_SHARE = 0.1, 0.1
ODD_STUDENTS, ODD_TEACHERS = 0.7, 2.0


@dataclasses.dataclass
class Outcome:
    """What became of one model.

    Attributes:
      end: "equal", "refused", "not of Keras" or "fault".
      reason: why it was refused, or what is at fault.
      error: of the file's outputs, where 8 bits may change little.
    """

    end: str
    reason: str = ""
    error: float | None = None


def float_outputs(model: tf_keras.Model, fed) -> np.ndarray:
    """[N, K], as a user would ask for them."""
    fed = tf.cast(fed, model.inputs[0].dtype)
    return np.asarray(tf.cast(model(fed, training=False), tf.float64)).reshape(len(fed), -1)


def file_logits(path: pathlib.Path, images: np.ndarray) -> np.ndarray:
    """[N, K] of a .tflite, by LiteRT as a stranger would call it."""
    litert = Interpreter(str(path))
    litert.allocate_tensors()
    (given,), (made,) = litert.get_input_details(), litert.get_output_details()
    scale, zero_point = made["quantization"]
    found = []
    for image in images:
        litert.set_tensor(given["index"], image[np.newaxis])
        litert.invoke()
        found.append((litert.get_tensor(made["index"])[0].astype(float) - zero_point) * scale)
    return np.array(found)


def fed(drawn: Drawn, images: np.ndarray, notes: Sequence[str] = ()) -> np.ndarray:
    """What the user makes of pixels before the model reads them: nothing, where a note says that it does so itself."""
    if not drawn.options or any(f"{drawn.model.name} normalises its pixels itself" in note for note in notes):
        return images.astype(np.float32)
    mean, deviation = (np.asarray(drawn.options[f"student_weights_{what}"]) for what in ("mean", "std"))
    return ((images - mean) / deviation).astype(np.float32)


def rounding(model: tf_keras.Model) -> float:
    found = {getattr(layer, "compute_dtype", "float32") for layer in model.submodules}
    return next((ROUNDING[precision] for precision in ROUNDING if precision in found), ROUNDING["float32"])


def largest_difference(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape, f"{got.shape} instead of {expected.shape}"
    kept = np.isfinite(expected).all(-1)  # of a black picture half precision may make NaN where float32 makes a number
    assert kept.sum() > len(kept) / 2, "the model itself gives NaN"
    return float(np.max(np.abs(got - expected)[kept]) / max(np.max(np.abs(expected[kept])), 1e-30))


def share_of_all(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30))


def test_pictures(drawn: Drawn) -> np.ndarray:
    """Others than it trains on, the darkest and the brightest among them."""
    images = pictures(drawn.pictures.shape[1:], 16, seed=1)
    images[0], images[1] = 0, 255
    return images


test_pictures.__test__ = False


@contextlib.contextmanager
def students_seen():
    """The float students that the pre-flight hands on meanwhile."""
    seen, original = [], networks.checked_student

    def student(*positional, **named):
        network, plan = original(*positional, **named)
        seen.append(network)
        return network, plan

    networks.checked_student = student
    try:
        yield seen
    finally:
        networks.checked_student = original


def reason_of(error: ExperimentError, drawn: Drawn) -> str:
    """A refusal without names and numbers."""
    text = str(error).replace(drawn.model.name, "…")
    assert len(text.splitlines()) == 1 and text.strip() and not text.startswith("Traceback"), f"{text!r} is no line"
    found = re.search(r"layer \S.*? ((?:is|has|reads|applies|gives|makes|normalis|cannot|a [A-Z]).*?)[;,:]", text)
    return re.sub(r"-?\d[\d.e+-]*", "N", found[1] if found else text)[:90]


def fit(drawn: Drawn, images: np.ndarray, trains: bool, folder: pathlib.Path) -> qkd_tf.Run:
    return qkd_tf.fit(
        drawn.model,
        (drawn.pictures, np.arange(len(drawn.pictures)) % drawn.num_classes),
        (images, np.arange(len(images)) % drawn.num_classes),
        run_dir=folder,
        bits=drawn.bits,
        phases={"self_studying": 1} if trains else {},
        batch_size=8,
        validation_fraction=0.25,
        deterministic=False,
        label_names=[*map(str, range(drawn.num_classes))] if drawn.chance.random() < 0.5 else None,
        **({"max_steps": 1, "learning_rates": 1e-4} if trains else {}),  # at 0.01 such a step may diverge
        **drawn.options,
    )


def of_student(drawn: Drawn, folder: pathlib.Path) -> Outcome:
    trains = drawn.chance.random() < TRAINING_SHARE
    runtimes = ("tflm",) if drawn.chance.random() < TFLM_SHARE else ()
    images = test_pictures(drawn)
    before = [np.array(weight) for weight in drawn.model.weights]
    with students_seen() as seen:
        try:
            run = fit(drawn, images, trains, folder)
        except ExperimentError as error:
            assert not folder.exists(), f"refused after training began: {error}"
            return Outcome("refused", reason_of(error, drawn))
    for weight, value in zip(drawn.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, f"{weight.name} of the user's model was changed")
    head, subject = PROBABILITIES[drawn.head], seen[0].subject
    expected = float_outputs(drawn.model, fed(drawn, images, seen[0].notes))  # what Keras cannot run was to be refused
    ours = head(float_outputs(subject.ours, images))
    difference = largest_difference(ours, expected)
    assert difference <= rounding(drawn.model), f"the float student differs by {difference:.3g}"
    verification = tflite_export.export(run, runtimes=runtimes)
    written = json.loads((folder / "export" / "verification.json").read_text())
    assert verification["passed"] and written["passed"], f"the file failed: {verification['failures']}"
    got = head(file_logits(folder / "export" / "model.tflite", drawn.pictures))
    num_kernels = sum(has_kernel(layer) for layer in subject.trains.layers)
    if trains or drawn.bits != "w8a8" or not drawn.shallow or num_kernels > SHALLOW:
        return Outcome("equal")
    error = share_of_all(got, head(float_outputs(subject.trains, drawn.pictures)))
    assert error <= QUANTIZATION, f"outputs of the file differ by {error:.3g} of the float student's"
    return Outcome("equal", error=error)


def of_teacher(drawn: Drawn) -> Outcome:
    images = test_pictures(drawn)
    told = {name.removeprefix("student_weights_"): value for name, value in drawn.options.items()}
    told = PixelNormalization(*(tuple(np.atleast_1d(v).tolist()) for v in told.values())) if told else None
    spec = NetworkSpec(f"{TRAINED_IN_MEMORY}teacher", told or PIXELS, weights_normalization=told)
    try:
        network = networks.build_teacher(spec, images.shape[1:], drawn.num_classes, drawn.model)
        network.prove(drawn.pictures)
    except ExperimentError as error:
        return Outcome("refused", reason_of(error, drawn))
    expected = float_outputs(drawn.model, fed(drawn, images, network.notes))
    logits = float_outputs(network.model, images)
    difference = largest_difference(PROBABILITIES[drawn.head](logits), expected)
    assert difference <= rounding(drawn.model), f"the teacher differs by {difference:.3g}"
    return Outcome("equal")


def campaign(num_models: int, seed: int, strategy: st.SearchStrategy, outcome_of, capsys, title: str) -> dict:
    """Draws models until all are looked at, prints what became of them, and fails if one is at fault.

    Hypothesis does not make a fault smaller: that takes longer than drawing others; each is told as it was drawn.
    """
    outcomes, faults, slowest, start = [], [], 0.0, time.perf_counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_models,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=False,  # the seed decides
    )
    @hypothesis.given(strategy)
    def look(drawn):
        nonlocal slowest
        began = time.perf_counter()
        if drawn is None:
            outcomes.append(Outcome("not of Keras"))
            return
        try:
            outcomes.append(outcome_of(drawn))
        except Exception as error:  # the very thing that is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:300]
            reason = f"{type(error).__name__}: {text} ({pathlib.Path(where.filename).name}:{where.lineno})"
            outcomes.append(Outcome("fault", reason))
            faults.append(f"model {len(outcomes)}: {reason}\n{drawn!r}")
            with capsys.disabled():
                print(f"\n{faults[-1]}", flush=True)
        tf_keras.backend.clear_session()
        capsys.readouterr()
        slowest = max(slowest, time.perf_counter() - began)
        if len(outcomes) % 20 == 0:
            gc.collect()
            with capsys.disabled():
                counts = collections.Counter(outcome.end for outcome in outcomes)
                print(
                    f"{title}: {len(outcomes)} of {num_models} in {time.perf_counter() - start:.0f} s: {dict(counts)}"
                )

    look()
    counts = collections.Counter(outcome.end for outcome in outcomes)
    reasons = collections.Counter(outcome.reason for outcome in outcomes if outcome.end == "refused")
    errors = sorted(outcome.error for outcome in outcomes if outcome.error is not None)
    summary = {
        "seed": seed,
        "drawn": len(outcomes) - counts["not of Keras"],
        "equal": counts["equal"],
        "refused": counts["refused"],
        "faults": counts["fault"],
        "largest_error_at_8_bits": max(errors, default=None),
        "median_error_at_8_bits": float(np.median(errors)) if errors else None,
        "refused_by_reason": dict(reasons.most_common()),
    }
    with capsys.disabled():
        print(f"\n{title}: {json.dumps(summary, indent=1, ensure_ascii=False)}")
    assert not faults, f"{len(faults)} of {summary['drawn']} {title} are at fault:\n\n" + "\n\n".join(faults)
    assert summary["equal"] and summary["refused"], "models of one kind alone prove little"
    return summary


def _end(inputs, x, units: int = 3):
    return tf_keras.Model(inputs, L.Dense(units)(L.GlobalAveragePooling2D()(x)))


def _user_model(body, **of_input):
    inputs = tf_keras.Input((8, 8, 3), **of_input)
    x = tf.cast(inputs, tf.float32) if of_input else inputs
    return _end(inputs, body(x if of_input else L.Rescaling(1 / 255.0)(x)))


def _of_outputs(make):
    inputs = tf_keras.Input((8, 8, 3))
    x = L.Conv2D(3, 3)(L.Rescaling(1 / 255.0)(inputs))
    return tf_keras.Model(inputs, make(x, L.GlobalAveragePooling2D()(x)))


def _of_unknown_size():
    inputs = tf_keras.Input((None, None, 3))
    return tf_keras.Model(inputs, L.Reshape((-1,))(L.Conv2D(3, 3)(L.Rescaling(1 / 255.0)(inputs))))


def _with_branch_of_zeros():
    """A residual block as it begins, beside activations of a thousandth: an interval of 1 is none of its sum's."""

    def body(x):
        x = L.Conv2D(4, 3, padding="same", kernel_initializer=tf_keras.initializers.RandomNormal(stddev=1e-3))(x)
        y = L.Conv2D(4, 3, padding="same", use_bias=False)(x)
        return L.ReLU()(L.Add()([x, L.BatchNormalization(gamma_initializer="zeros")(y)]))

    return _user_model(body)


def _on_two_sizes(layer):
    return lambda: _user_model(lambda x: L.Conv2D(4, 1)(layer(L.MaxPooling2D()(layer(x)))))


def _in_training(make):
    def inner(x):
        pixels = tf_keras.Input(x.shape[1:])
        return tf_keras.Model(pixels, L.BatchNormalization()(pixels))(x, training=True)

    return lambda: _user_model(inner if make is None else lambda x: make(L.Conv2D(4, 3)(x), training=True))


def _diverged():
    model = _user_model(lambda x: L.Conv2D(4, 1, name="second")(L.Conv2D(4, 3)(x)))
    settle(model, 0)
    for weight in model.weights:
        weight.assign(1e30 * weight)
    return model


NORMALIZED = {"student_weights_mean": 127.5, "student_weights_std": 127.5}
# Models that were at fault once -> what makes one, what a refusal of it says ("" for none), options.
FOUND = {
    "ReLU(6) as a depthwise activation": (
        lambda: _user_model(lambda x: L.DepthwiseConv2D(3, activation=L.ReLU(6.0))(x)),
        "",
        {},
    ),
    "inverted Normalization": (
        lambda: _user_model(lambda x: L.Normalization(axis=None, mean=0.5, variance=0.1, invert=True)(x)),
        "",
        {},
    ),
    "a layer that is nothing, on two sizes": (_on_two_sizes(L.GaussianNoise(0.1)), "", {}),
    "a layer that is refused, on two sizes": (_on_two_sizes(L.ELU()), "layer elu.* is an ELU; use ReLU", {}),
    "an empty Sequential": (lambda: _user_model(lambda x: tf_keras.Sequential()(L.Conv2D(4, 3)(x))), "", {}),
    "a Concatenate of one": (lambda: _user_model(lambda x: L.Concatenate()([L.Conv2D(4, 3)(x)])), "", {}),
    "a branch of zeros": (_with_branch_of_zeros, "", {}),
    "noise in training": (_in_training(L.GaussianNoise(0.1)), "gaussian_noise.* is called with training=True", {}),
    "a model in training": (_in_training(None), "layer model.* is called with training=True", {}),
    "a bounded ReLU as an activation": (
        lambda: _user_model(lambda x: L.Activation(L.ReLU(3.0), name="clip")(x)),
        "",
        {},
    ),
    "normalised pixels of whole numbers": (
        lambda: _user_model(lambda x: L.Conv2D(4, 3)(x), dtype="uint8"),
        "has an Input of uint8, which cannot hold pixels normalised by mean 127.5 .* make it float32",
        NORMALIZED,
    ),
    "two outputs": (lambda: _of_outputs(lambda x, y: [y, x]), "has 1 input and 2 outputs; one of each", {}),
    "an output in a dict": (lambda: _of_outputs(lambda x, y: {"a": y}), "takes or returns a dict; give", {}),
    "one number": (
        lambda: _of_outputs(lambda x, y: tf.reduce_mean(y, -1)),
        r"of shape \(None,\); a classifier has \(None, classes\)",
        {},
    ),
    "outputs of unknown size": (_of_unknown_size, r"of shape \(None, None\)", {}),
    "weights that overflow": (_diverged, "are not finite; layer second is the first to do so; give weights", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_model_that_was_at_fault_is_the_same_in_a_file_or_refused_in_a_line(name, tmp_path):
    make, refusal, options = FOUND[name]
    model = make()
    drawn = Drawn(model, pictures((8, 8, 3)), 3, "logits", True, "w8a8", options, [name], random.Random(0))
    if not refusal:
        assert of_student(drawn, tmp_path / "run").end == "equal"
        return
    with pytest.raises(ExperimentError, match=refusal) as told:
        fit(drawn, test_pictures(drawn), False, tmp_path / "run")
    assert reason_of(told.value, drawn) and not (tmp_path / "run").exists()


@pytest.fixture(autouse=True)
def random_numbers_as_before():
    yield
    tf_keras.backend.clear_session()


@pytest.mark.slow
def test_drawn_students_train_and_are_the_same_in_a_file_or_are_refused_in_a_line(request, tmp_path, capsys):
    num_models, seed = (request.config.getoption(f"--drawn_{what}") for what in ("models", "seed"))

    def outcome_of(drawn):
        try:
            return of_student(drawn, tmp_path / "run")
        finally:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    summary = campaign(num_models, seed, models(ODD_STUDENTS), outcome_of, capsys, "students")
    if path := request.config.getoption("--drawn_results"):
        pathlib.Path(path).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.slow
def test_drawn_teachers_are_proven_or_refused_in_a_line(request, capsys):
    num_models, seed = (request.config.getoption(f"--drawn_{what}") for what in ("models", "seed"))
    campaign(num_models, seed, models(ODD_TEACHERS), of_teacher, capsys, "teachers")
