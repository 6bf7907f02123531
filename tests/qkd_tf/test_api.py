"""`qkd_tf.fit`: the same job as the command's, on what is in memory."""

import functools
import importlib
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits
from tf_keras import layers

import qkd_tf
import tflite_export
from qkd_tf import api, flags
from qkd_tf.distillation.progress import PhaseProgress
from qkd_tf.experiment import ExperimentError
from qkd_tf.train import job
from qkd_tf.train.__main__ import main
from tests.saved_flags import saved_flags
from tflite_export import ExportError

DIGITS = load_digits()
IMAGES = np.round(DIGITS.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
SETS = (IMAGES[:300], DIGITS.target[:300]), (IMAGES[300:400], DIGITS.target[300:400])
SHORT = {"batch_size": 64, "max_steps": 2, "crop_padding": 0, "horizontal_flip": False}


def network(width=4, rescaling=True, seed=0):
    tf_keras.utils.set_random_seed(seed)
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            *([layers.Rescaling(1 / 255)] if rescaling else []),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def fit(run_dir, student=None, sets=SETS, **changes):
    options = {"run_dir": run_dir, "phases": {"self_studying": 1}} | SHORT | changes
    return qkd_tf.fit(student or network(), *sets, **options)


def kernels(run):
    return list(np.load(run.path / "handoff" / "weights.npz").values())  # by the order of the layers


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Student and teacher from scratch."""
    phases = {"full_precision": 1, "tutoring": 1}
    student, teacher = network(), network(8)
    before = [model.get_weights() for model in (student, teacher)]
    made = fit(
        tmp_path_factory.mktemp("api") / "run", student, phases=phases, teacher=teacher, pretrained=(), bits="w3a5"
    )
    for model, weights in zip((student, teacher), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
    return made


@pytest.fixture(scope="module")
def run_of_one_phase(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("api") / "run")


def test_run_is_an_ordinary_run_folder(run):
    lines = (run.path / "flags.txt").read_text().splitlines()
    assert {"--weight_bits=3", "--activation_bits=5", "--batch_size=64"} <= set(lines)
    assert "--phases=full_precision,tutoring" in lines
    assert [phase["phase"] for phase in run.results["phases"]][0] == "full_precision"
    assert run.student_top1 == run.results["student_test_top1"]
    assert "teacher_loss" in run.results["phases"][0]["history"][0]  # it was not taken for pretrained
    assert (run.path / "handoff" / "labels.txt").read_text().split() == [str(n) for n in range(10)]


def test_run_is_exported_and_verified(run, capsys):
    verification = tflite_export.export(run, runtimes=())
    assert verification["passed"] and verification["num_images"] == 100
    assert f"{run.path}/export/model.tflite: " in capsys.readouterr().out


@pytest.mark.slow
def test_equal_call_goes_on_although_keras_counts_layers_on(run_of_one_phase, monkeypatch):
    trained = kernels(run_of_one_phase)
    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", None)  # nothing is left to train
    again = fit(run_of_one_phase.path, network())
    assert all(np.array_equal(a, b) for a, b in zip(kernels(again), trained, strict=True))


def test_scales_that_no_file_can_hold_are_told_before_training_and_again_at_its_end(tmp_path, capsys, chain):
    student = chain(
        layers.Rescaling(1 / 255),
        layers.Conv2D(2, 1, kernel_initializer="ones", name="conv"),
        layers.ReLU(1e-6, name="relu"),
        layers.Flatten(),
        layers.Dense(10),
        input_shape=(8, 8, 1),
    )
    with pytest.raises(ExperimentError, match="no file can hold the student: layer relu: one step of its inputs is "):
        fit(tmp_path / "run", student, bits="w2a4", learning_rates=1e-6)
    told = capsys.readouterr().out
    note = "note: after calibration no file can hold the student: layer relu: one step of its inputs is "
    assert note in told and told.index(note) < told.index("self_studying: ")
    with pytest.raises(ExportError, match="its training has not ended, or ended in an error; make the call of "):
        tflite_export.export(tmp_path / "run")


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"student": network(seed=1)}, "changed since: the student's first weights;"),
        ({"student": network(5)}, "changed since: the student's layers or their wiring, the student's first weights;"),
        ({"sets": (SETS[0], SETS[0])}, "another experiment, which differs in train_set;"),
        (
            {"bits": "w8a8"},
            "another experiment, which differs in activation_bits .4 there, 8 now., weight_bits .4 there, 8 now.;",
        ),
    ],
    ids=["weights", "layers", "images", "bits"],
)
def test_folder_of_another_call_is_left_alone(run_of_one_phase, changes, told):
    with pytest.raises(ExperimentError, match=told):
        fit(run_of_one_phase.path, **changes)


def test_names_make_the_experiment_of_the_command(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(api, "train", lambda *call: calls.append(call))
    rates = {"learning_rates": [0.1, 0.05], "bits_rule": ["a.*=w8", "b,c=a3"], "horizontal_flip": False}
    phases = {"self_studying": 3, "tutoring": 2}
    qkd_tf.fit("resnet8", "cifar10", run_dir=tmp_path, bits="w2a3", phases=phases, teacher="resnet20", seed=5, **rates)
    ((experiment, lines, given),) = calls
    command = (
        *("--student=resnet8", "--dataset=cifar10", f"--run_dir={tmp_path}", "--weight_bits=2", "--activation_bits=3"),
        *("--phases=self_studying,tutoring", "--epochs=3,2", "--teacher=resnet20", "--seed=5"),
        *("--learning_rates=0.1,0.05", "--bits_rule=a.*=w8", "--bits_rule=b,c=a3", "--nohorizontal_flip"),
    )
    with saved_flags():
        flags.FLAGS(["train", *command])
        assert flags.experiment_from_flags() == experiment
        assert flags.flag_lines() == lines
    assert given == job.InMemory()


@pytest.mark.slow
def test_phases_at_widths_of_their_own_are_told_apart_from_callback_to_report(tmp_path, capsys):
    """A phase may come again, rules stay, and the file has the last widths."""
    told = []
    options = SHORT | {"epochs": 1, "max_eval_images": 40, "bits_rule": "conv3=w5"}

    def train(phase_bits):
        phases = ["self_studying", "self_studying"]
        options["callbacks"] = lambda phase, epoch, logs: told.append(phase)
        return qkd_tf.fit(
            "convnet_small",
            "digits",
            run_dir=tmp_path / "run",
            bits="w2a4",
            phases=phases,
            phase_bits=phase_bits,
            **options,
        )

    made = train([8, "w2a4"])
    labels = ["self_studying", "self_studying_2"]
    assert list(made.history) == [phase["phase"] for phase in made.results["phases"]] == told == labels
    widths = [(phase.get("weight_bits"), phase.get("activation_bits")) for phase in made.results["phases"]]
    assert widths == [(8, 8), (2, 4)]
    assert "self_studying 1, self_studying_2 1" in repr(made)
    kernels = {row["layer"]: row["num_bits"] for row in made.results["coverage"] if row["tensor"] == "kernel"}
    assert kernels == {"conv1": 8, "conv2": 2, "conv3": 5, "conv4": 2, "logits": 8}
    lines = capsys.readouterr().out.splitlines()
    (at_8,) = [line for line in lines if line.startswith("self_studying: quantized tensors of convnet_small")]
    (at_2,) = [line for line in lines if line.startswith("self_studying_2: quantized tensors of convnet_small")]
    assert "4 kernels at 8 bits" in at_8 and "1 kernel at 5 bits" in at_8
    assert "2 kernels at 2 bits" in at_2 and "1 kernel at 5 bits" in at_2
    with pytest.raises(
        ExperimentError, match="another experiment, which differs in phase_bits .8,w2a4 there, 4,w2a4 now.;"
    ):
        train([4, "w2a4"])
    assert tflite_export.export(made, runtimes=())["passed"]
    assert "2 self-studying-2, W2A4" in (made.path / "report.html").read_text()


@pytest.mark.slow
def test_names_of_classes_are_those_of_any_set_that_has_them_or_a_note_asks_for_them(tmp_path, cut, capsys):
    train, test = (tf.data.Dataset.from_tensor_slices(part).batch(50) for part in SETS)
    fit_again = functools.partial(fit, sets=(train, test))
    cut(lambda: fit_again(tmp_path / "numbers"))
    note = "note: labels.txt will call the classes by their numbers; label_names=[…] gives them names"
    assert note in capsys.readouterr().out
    cut(lambda: fit_again(tmp_path / "by_name", "resnet8"))
    assert note in capsys.readouterr().out
    test.class_names = [f"digit {number}" for number in range(10)]
    cut(lambda: fit_again(tmp_path / "names"))
    assert note not in capsys.readouterr().out


@pytest.mark.slow
def test_signal_stops_with_keyboard_interrupt_and_a_checkpoint(tmp_path, monkeypatch):
    original = PhaseProgress.on_train_batch_end

    def interrupt(self, batch, logs=None):
        original(self, batch, logs)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(PhaseProgress, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGINT; the same call resumes"):
        fit(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["phase0_epoch0_step1"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bits": 4.5}, "bits=4.5 is not understood; write w4a8, or 4 for weights and activations alike"),
        ({"bits": (4, 8)}, r"bits=\(4, 8\) is not understood; write w4a8, or 4 for weights and activations alike"),
        ({"phases": [1]}, "phases=.*: give epochs by phase"),
        ({"phases": "", "bits": "auto"}, 'bits="auto" needs a budget'),  # as {}: nothing of phases is wrong
        ({"phases": 5}, "phases=5: give epochs by phase"),
        ({"epochs": 5}, "epochs is set by the argument phases; leave the option out"),
        ({"augment": 5}, "augment is of type int; give a function of .images, seed."),
        ({"augment": lambda images, seed: images[:1]}, "augment=<lambda> turns uint8"),
        ({"callbacks": [tf_keras.callbacks.History()]}, "callback History cannot be called as on_epoch_end"),
        ({"class_weights": {"ten": 2}}, "class_weights has the unknown class 'ten'; known are 0, 1"),
        ({"class_weights": [1, 2]}, "class_weights has 2 numbers and there are 10 classes"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 is not in"),
        ({"weight_bits": 2, "bits": 4}, "bits=4 and weight_bits=2 both set bit widths; leave one of them out"),
        (
            {"student": tf_keras.Sequential([layers.Dense(10)])},
            "is a Sequential whose layers cannot be read; .* begins with tf_keras.Input",
        ),
        ({"bits": "w4"}, 'bits="w4" is not understood; write w4a8, or 4 for weights and activations alike'),
        ({"phases": {"studying": 3}}, "unknown phase 'studying' in phases; did you mean co_studying[?]"),
        ({"phases": {"tutoring": 1}}, "tutoring needs a teacher; give one by teacher, or leave tutoring out of phases"),
        ({"learning_rate": 0.1}, "^fit has no argument learning_rate; did you mean learning_rates[?]"),
        ({"testset": SETS[1]}, "^fit has no argument testset; did you mean test_set[?]"),
        ({"batch_size": "many"}, '^batch_size="many": a whole number is expected'),
        ({"weight_decay": "much"}, '^weight_decay="much": a number is expected'),
        ({"horizontal_flip": 3}, "^horizontal_flip=3: true or false is expected"),
        ({"optimizer": "lion"}, "^optimizer=lion: value should be one of <sgd|adam>"),
        ({"optimizer": tf_keras.optimizers.SGD()}, "value should be one of <sgd|adam>"),
        ({"equalize_channels": False}, "value should be one of <auto|on|off>"),
        ({"target": None}, "value should be one of <phone|microcontroller|ethos_u>"),
        ({"batch_size": np.array([1, 2])}, "a whole number is expected"),
        ({"student": network(rescaling=False)}, "normalis"),
        ({"sets": (SETS[0],)}, "test_set is missing"),
        ({"student": "resnet9"}, "unknown student 'resnet9'"),
        ({"student": object()}, "student is of type object; a Keras model is expected"),
        ({"sets": ("digits", SETS[1])}, "train_set='digits' names a whole data set"),
        ({"student": tf_keras.Sequential([layers.Input((9, 9, 1)), layers.Flatten(), layers.Dense(10)])}, "reads pict"),
    ],
)
def test_mistake_is_one_line(tmp_path, changes, message):
    with pytest.raises(ExperimentError, match=message) as caught:
        fit(tmp_path / "run", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["results", "history", "model", "student_top1"])
def test_run_that_is_not_there_is_told(tmp_path, what):
    run = qkd_tf.Run(tmp_path)
    with pytest.raises(ExperimentError, match=re.escape(f"{tmp_path} is not a finished run")):
        getattr(run, what)
    assert repr(run) == f"Run('{tmp_path}', not finished)"
    assert not hasattr(run, "tflite") and not hasattr(run, "model")


def test_run_may_be_given_as_text(tmp_path):
    with pytest.raises(ExperimentError, match="is not a finished run"):
        _ = qkd_tf.Run(str(tmp_path)).results


@pytest.mark.parametrize(
    "door, name, told",
    [
        (qkd_tf, "export", "; export is a function of tflite_export"),
        (qkd_tf, "fitt", "; did you mean fit?"),
        (qkd_tf, "zzz", ""),
        (tflite_export, "exprot", "; did you mean export?"),
    ],
)
def test_unknown_name_of_a_package_is_told_with_what_is_near(door, name, told):
    with pytest.raises(AttributeError) as caught:
        getattr(door, name)
    assert str(caught.value) == f"module {door.__name__} has no attribute {name}{told}"


def test_run_has_history_and_model_and_once_exported_its_file(run, capsys):
    assert repr(run).startswith(f"Run('{run.path}', w3a5, full_precision 1, tutoring 1: ")
    history = run.history
    assert history.keys() == {"full_precision", "tutoring"}
    assert {"student_loss", "student_top1", "teacher_loss", "validation_top1"} <= history["full_precision"].keys()
    assert {len(values) for values in history["tutoring"].values()} == {1}
    assert history["tutoring"]["student_loss"][0] == run.results["phases"][1]["history"][0]["student_loss"]
    images, labels = SETS[1]
    predicted = run.model.predict(images, verbose=0).argmax(-1)
    assert 100 * np.mean(predicted == labels) == pytest.approx(run.results["student"]["real_numbers_top1"])
    (run.path / "export" / "verification.json").unlink(missing_ok=True)
    with pytest.raises(ExperimentError, match="is not exported; tflite_export.export.run. writes the file"):
        _ = run.tflite
    exported = tflite_export.export(run, runtimes=())
    assert run.tflite == exported.tflite == run.path / "export" / "model.tflite" and run.tflite.exists()
    assert repr(run).endswith(", exported)")
    (run.path / "export" / "verification.json").write_text('{"passed": false}')
    with pytest.raises(ExperimentError, match="was refused; report.html"):
        _ = run.tflite


def test_errors_are_named_where_users_find_them():
    assert qkd_tf.ExperimentError is ExperimentError
    for error in (qkd_tf.ExperimentError, qkd_tf.FolderInUseError, tflite_export.ExportError):
        package = importlib.import_module(error.__module__)
        assert package in (qkd_tf, tflite_export) and getattr(package, error.__name__) is error


def noisy(images, seed):
    return images ^ tf.cast(tf.random.stateless_uniform(tf.shape(images), seed, 0, 8, tf.int32), tf.uint8)


@pytest.mark.slow
def test_training_habits_of_the_user_and_a_callback_that_ends_it(tmp_path, monkeypatch, capsys):
    """Without a folder, phases or epochs by phase; a call that its callback ended goes on, and ends as one in peace."""
    monkeypatch.chdir(tmp_path)
    habits = {"augment": noisy, "label_smoothing": 0.1, "class_weights": {0: 2.0, "1": 0.5}}
    habits |= {"phases": None, "epochs": 2}
    heard = []

    def chatty(phase, epoch, logs):
        heard.append((phase, epoch, sorted(logs)))
        np.random.rand(), tf.random.uniform(())  # noqa: B018  which training must not notice
        if len(heard) == 1:
            raise RuntimeError("the tracking server is away")

    with pytest.raises(ExperimentError, match="turns uint8"):
        fit(None, **habits | {"augment": lambda images, seed: images[:1]})
    assert "run folder: " not in capsys.readouterr().out  # which would not be there
    with pytest.raises(RuntimeError, match="the tracking server is away"):
        fit(None, callbacks=chatty, **habits)
    (folder,) = (tmp_path / "runs").iterdir()
    told = capsys.readouterr().out
    assert re.fullmatch(r"sequential_w4a4_\d{8}-\d{6}", folder.name) and f"run folder: runs/{folder.name};" in told
    assert "note: the run trains self_studying, the default of phases without a teacher" in told
    assert told.count(" multiply-adds. Kernels and biases: ") == 1 and "  kind  " not in told
    went_on = fit(folder, callbacks=[chatty], **habits)
    in_peace = fit(None, **habits)
    assert in_peace.path != folder
    logged = ["seconds", "student_loss", "student_top1", "validation_top1"]
    assert heard == [("self_studying", 0, logged), ("self_studying", 1, logged)]
    assert all(np.array_equal(a, b) for a, b in zip(kernels(went_on), kernels(in_peace), strict=True))
    lines = set((folder / "flags.txt").read_text().splitlines())
    assert {"--augment=in_memory:noisy", "--label_smoothing=0.1", "--class_weights=0:2.0,1:0.5"} <= lines
    with pytest.raises(ExperimentError, match="changed since: what augment makes of pictures;"):
        fit(folder, **habits | {"augment": named("noisy", lambda images, seed: noisy(images, seed + 1))})


def named(name, function):
    function.__name__ = name
    return function


def test_images_that_were_in_memory_are_not_opened_by_name(run_of_one_phase):
    with saved_flags():
        flags.FLAGS(["train", *(run_of_one_phase.path / "flags.txt").read_text().splitlines(), "--run_dir=elsewhere"])
        with pytest.raises(SystemExit, match="were given in Python and are not saved; call qkd_tf.fit"):
            main(["train"])


def test_results_file_is_json_that_people_read(run_of_one_phase):
    results = json.loads((run_of_one_phase.path / "results.json").read_text())
    told = results["experiment"]
    assert told["student"]["name"] == "in_memory:trained:sequential"
    assert re.fullmatch(r"in_memory:[0-9a-f]{16}", told["data"]["name"])
    proof = results["as_given"]["student"]
    assert proof["num_images"] == 32 and proof["head"] == "softmax"
    assert 0 <= proof["difference"] < proof["tolerance"] == 1e-3
    assert results["start_top1"].keys() == {"student", "estimated", "quantized"}  # its weights are random
    assert results["start_top1"] == json.loads((run_of_one_phase.path / "start.json").read_text())["top1"]


class Cut(Exception):
    """Ends a start where training would begin: the folder is claimed then, and everything was looked at."""


@pytest.fixture
def cut(monkeypatch):
    """cut(function): calls it and sees that it comes to training."""

    def end(trainer):
        raise Cut

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(job.Trainer, "run", end)
            with pytest.raises(Cut):
                function()

    return call


@pytest.fixture(scope="module")
def transferred():
    """A network that knows the digits, whose base is frozen as transfer-learning guides freeze it."""
    tf_keras.utils.set_random_seed(0)
    base = tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
        ],
        name="base",
    )
    pixels = tf_keras.Input((8, 8, 1))
    x = layers.Flatten()(base(layers.Rescaling(1 / 64, -2.0)(pixels)))
    model = tf_keras.Model(pixels, layers.Dense(10)(x), name="transferred")
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(3e-3), loss, ["accuracy"])
    model.fit(IMAGES[:1000], DIGITS.target[:1000], batch_size=50, epochs=6, verbose=0)
    base.trainable = False
    return model


ALL = (IMAGES[:1000], DIGITS.target[:1000]), (IMAGES[1000:1300], DIGITS.target[1000:1300])


@pytest.mark.slow
def test_frozen_base_keeps_its_accuracy_and_its_statistics(tmp_path, transferred, capsys):
    """At 6352718 W8A8 of two epochs went from 100 % to 24.5 %, and the file passed."""
    float_top1 = 100 * np.mean(transferred.predict(ALL[1][0], verbose=0).argmax(-1) == ALL[1][1])
    made = fit(tmp_path / "run", transferred, ALL, bits="w8a8", max_steps=5, batch_norm_batches=20, learning_rates=1e-3)
    assert float_top1 > 90 and made.student_top1 > float_top1 - 2
    assert made.results["start_top1"]["quantized"] > 90
    printed = capsys.readouterr().out
    assert "note: 4 of 5 layers of the student transferred are frozen, trainable = False" in printed
    assert "top-1 on 100 validation images: student after calibration: " in printed
    assert "the student computes what transferred computes: on 32 pictures outputs differ by " in printed
    handoff = tf_keras.models.load_model(made.path / "handoff" / "student.keras", compile=False)
    for layer in transferred.get_layer("base").layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, _, mean, variance = handoff.get_layer(layer.name).get_weights()  # beta takes up rounding
            np.testing.assert_allclose(gamma, layer.gamma, rtol=1e-6)
            np.testing.assert_allclose(mean, layer.moving_mean, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(variance, layer.moving_variance, rtol=1e-5)


def teach(run_dir, teacher, **options):
    return fit(run_dir, phases={"tutoring": 1}, teacher=teacher, **options)


@pytest.mark.slow
@pytest.mark.parametrize("weak", ["chance", "far below"])
def test_weak_teacher_stops_the_run_in_a_line_and_a_flag_lets_it_pass(tmp_path, transferred, weak, cut):
    """At 6352718 it taught, and nothing was said."""
    if weak == "chance":
        teacher, student, told = network(8), network(), "while always giving the same class is right on"
    else:
        teacher, student, told = half_blind(transferred), transferred, "the student before training on"
    with pytest.raises(
        ExperimentError, match=f"^the teacher is right on .* % of 100 validation images, {told}"
    ) as caught:
        teach(tmp_path / "run", teacher, student=student, sets=ALL)
    assert "allow_weak_teacher=True" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    cut(lambda: teach(tmp_path / "run", teacher, student=student, sets=ALL, allow_weak_teacher=True))


def half_blind(model):
    """One that sees the classes 0 to 5 alone, as if others were in another order."""
    copy = tf_keras.models.clone_model(model)
    *rest, kernel, bias = model.get_weights()
    copy.set_weights([*rest, kernel, np.where(np.arange(10) < 6, bias, -1e3).astype(np.float32)])
    return copy


@pytest.mark.slow
def test_strong_teacher_teaches(tmp_path, transferred, cut, capsys):
    cut(lambda: teach(tmp_path / "run", transferred, sets=ALL))
    printed = capsys.readouterr().out
    assert re.search(r"top-1 on 100 validation images: teacher before training: (9.|100)\.", printed)
    assert "top-1 on 100 validation images: student before training: " in printed


@pytest.mark.slow
def test_teacher_whose_pixels_have_to_be_told_is_refused(tmp_path, cut):
    """At 6352718 it read (pixel - 128) / 64 without a word."""
    teacher = network(8, rescaling=False)
    with pytest.raises(ExperimentError, match="does not normalise its pixels itself; .*by teacher_pixel_mean"):
        teach(tmp_path / "run", teacher)
    assert not (tmp_path / "run").exists()
    told = {"teacher_pixel_mean": 0, "teacher_pixel_std": 255, "allow_weak_teacher": True}
    cut(lambda: teach(tmp_path / "run", teacher, **told))


@pytest.mark.parametrize("phases", [{"co_studying": 1}, {"full_precision": 1, "tutoring": 1}])
def test_teacher_with_nothing_to_train_is_refused_where_a_phase_would_train_it(tmp_path, phases):
    """At 6352718 co-studying ended in a traceback."""
    teacher = network(8)
    teacher.trainable = False
    pretrained = ("student",) if "full_precision" in phases else ("student", "teacher")
    with pytest.raises(
        ExperimentError, match=f"is frozen .trainable = False., but {next(iter(phases))} would train it"
    ):
        fit(tmp_path / "run", phases=phases, teacher=teacher, pretrained=pretrained)
    assert not (tmp_path / "run").exists()


def test_student_with_nothing_to_train_is_refused_where_full_precision_would_train_it(tmp_path):
    student = network()
    student.trainable = False
    with pytest.raises(
        ExperimentError, match="is frozen .trainable = False., but full_precision would train it; set trainable"
    ):
        fit(tmp_path / "run", student, phases={"full_precision": 1, "self_studying": 1}, pretrained=())


BUILDER = """
import tf_keras
from tf_keras import layers

def build(input_shape, num_classes):
    return tf_keras.Sequential([
        layers.Input(input_shape),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, strides={strides}, padding="same"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(num_classes),
    ])
"""


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """builder(strides): what a user's module has from now on, as another start of the program reads it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(strides):
        (tmp_path / "edited_builder.py").write_text(BUILDER.format(strides=strides))
        sys.modules.pop("edited_builder", None)

    yield write
    sys.modules.pop("edited_builder", None)


@pytest.mark.slow
def test_builder_that_was_edited_between_two_starts_is_refused_with_what_changed(tmp_path, builder, cut):
    """At 6352718 the second start gave exit code 0, and a network that nobody trained."""

    def start():
        return fit(tmp_path / "run", "edited_builder:build")

    builder(strides=1)
    cut(start)
    builder(strides=1)
    cut(start)
    builder(strides=2)
    with pytest.raises(
        ExperimentError, match="began with contents that have changed since: the student's layers or their wi"
    ):
        start()


@pytest.mark.slow
def test_model_file_that_was_saved_anew_is_refused_with_what_changed(tmp_path, cut):
    """At 6352718 it gave the handoff of the file before."""

    def start():
        return fit(tmp_path / "run", tmp_path / "model.keras")

    network(seed=0).save(tmp_path / "model.keras")
    cut(start)
    network(seed=0).save(tmp_path / "model.keras")
    cut(start)
    network(seed=1).save(tmp_path / "model.keras")
    with pytest.raises(ExperimentError, match="changed since: the student's first weights; give another run_dir"):
        start()


@pytest.mark.slow
def test_weights_file_that_was_saved_anew_is_refused_with_what_changed(tmp_path, builder, cut):
    def start():
        return fit(tmp_path / "run", "edited_builder:build", student_weights=str(tmp_path / "w.keras"))

    builder(strides=1)
    for seed in (0, 1):
        tf_keras.utils.set_random_seed(seed)
        importlib.import_module("edited_builder").build((8, 8, 1), 10).save(tmp_path / "w.keras")
        if seed == 0:
            cut(start)
    with pytest.raises(ExperimentError, match="changed since: the student's first weights"):
        start()


def rewired(order):
    """The same layers, and the same weights in the same order, one behind the other as `order` says."""
    tf_keras.utils.set_random_seed(0)
    pixels = tf_keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(layers.Rescaling(1 / 255)(pixels))
    first, second = (layers.Conv2D(4, 3, padding="same", name=name) for name in "ab")
    first.build((None, 8, 8, 4))
    second.build((None, 8, 8, 4))
    parts = {"row": lambda: second(first(x)), "beside": lambda: layers.Add(name="add")([first(x), second(x)])}
    x = layers.Add(name="end")([x, parts[order]()])
    return tf_keras.Model(pixels, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)), name="rewired")


@pytest.mark.slow
def test_model_in_memory_that_was_rewired_is_refused(tmp_path, cut):
    """At 6352718 it returned the first one's run where JSON did not tell the two apart."""

    def start(order):
        return fit(tmp_path / "run", rewired(order), phases={"full_precision": 1, "self_studying": 1}, pretrained=())

    cut(lambda: start("row"))
    with pytest.raises(
        ExperimentError, match="changed since: the student's layers or their wiring; give another run_dir"
    ):
        start("beside")


@pytest.mark.slow
def test_one_unit_for_two_classes_is_trained_exported_and_verified(tmp_path):
    """At 6352718: "has 1 class … see labels.txt"."""
    tf_keras.utils.set_random_seed(0)
    student = tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    sets = tuple((images, (labels > 4).astype(int)) for images, labels in SETS)
    made = fit(tmp_path / "run", student, sets)
    assert made.results["as_given"]["student"]["head"] == "one sigmoid"
    assert (made.path / "handoff" / "labels.txt").read_text().split() == ["0", "1"]
    assert tflite_export.export(made, runtimes=())["passed"]


@pytest.mark.parametrize(
    "student, name",
    [
        ("models/mine.keras", "mine"),
        ("mine.h5", "mine"),
        ("nets:build", "build"),
        ("mobilenet_v2_1.0", "mobilenet_v2_1.0"),
        ("in_memory:trained:my net", "my_net"),
    ],
)
def test_a_run_folder_is_named_by_its_student(student, name):
    assert api._fresh_folder(student, "w4a4").name.startswith(f"{name}_w4a4_2")
