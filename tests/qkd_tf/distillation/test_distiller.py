"""One training step, restated with NumPy or with the other network's logits as constants."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf.distillation import distiller
from qkd_tf.distillation.distiller import Distiller, ParameterGroup
from qkd_tf.distillation.losses import cross_entropy, distillation
from qkd_tf.distillation.phases import PHASES
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.scheme import quantize_student

TEMPERATURE = 3.0
DISTILLATION_WEIGHT = 0.5
RATE = 0.1
DISTILLING = ("co_studying", "tutoring")


@pytest.fixture
def batch(images):
    return images, np.array([0, 2, 1, 2])


@pytest.fixture
def make_network(chain, randomize):
    """Pixels to 3 logits; random kernels, biases and batch statistics by seed."""

    def make(width, seed):
        return randomize(
            chain(
                layers.Rescaling(1 / 128, -1.0),
                layers.Conv2D(width, 3, use_bias=False, name="conv"),
                layers.BatchNormalization(name="bn"),
                layers.ReLU(name="relu"),
                layers.GlobalAveragePooling2D(name="pool"),
                layers.Dense(3, name="logits"),
            ),
            seed,
        )

    return make


def group(variables, rate=RATE):
    return ParameterGroup(tf_keras.optimizers.SGD(rate), variables)


def make_distiller(phase, student, teacher, weight_decay=0.0, student_groups=None, **options):
    row = PHASES[phase]
    distiller = Distiller(
        row,
        student,
        None if row.teacher == "absent" else teacher,
        [group(student.trainable_variables)] if student_groups is None else student_groups,
        [group(teacher.trainable_variables)] if row.teacher == "trained" else [],
        TEMPERATURE,
        lambda: DISTILLATION_WEIGHT,
        weight_decay,
        **options,
    )
    distiller.compile()
    return distiller


def values(model):
    return {v.name: v.numpy() for v in model.variables}


def moved(model, before):
    return {name for name, value in values(model).items() if not np.array_equal(value, before[name])}


def log_softmax(z):
    z = z.astype(np.float64)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def restated_loss(labels, logits, target, distills):
    """Cross-entropy and T^2 * KL in NumPy."""
    loss = -np.mean(log_softmax(logits)[np.arange(len(labels)), labels])
    if distills:
        p, q = log_softmax(target / TEMPERATURE), log_softmax(logits / TEMPERATURE)
        loss += DISTILLATION_WEIGHT * TEMPERATURE**2 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))
    return loss


def updated(network, batch, target_logits, rate_of=lambda name: RATE, weight_decay=0.0):
    """Trained variables after one step of plain gradient descent towards constant `target_logits`."""
    images, labels = batch
    with tf.GradientTape() as tape:
        logits = network(images, training=True)
        loss = cross_entropy(labels, logits)
        if target_logits is not None:
            loss += DISTILLATION_WEIGHT * distillation(tf.constant(target_logits), logits, TEMPERATURE)
    gradients = tape.gradient(loss, network.trainable_variables)
    return {
        v.name: v.numpy() - rate_of(v.name) * (g.numpy() + weight_decay * v.numpy() * ("kernel" in v.name))
        for v, g in zip(network.trainable_variables, gradients, strict=True)
    }


def assert_trained_to(network, expected):
    for variable in network.trainable_variables:
        np.testing.assert_allclose(variable.numpy(), expected[variable.name], atol=2e-6, err_msg=variable.name)


@pytest.mark.parametrize(
    "phase, teacher_moves",
    [("full_precision", True), ("self_studying", False), ("co_studying", True), ("tutoring", False)],
)
def test_a_network_moves_whole_or_not_one_bit(make_network, batch, phase, teacher_moves):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    student_before, teacher_before = values(student), values(teacher)
    distiller = make_distiller(phase, student, teacher, weight_decay=0.01)
    for _ in range(2):
        distiller.train_on_batch(*batch)
    assert moved(student, student_before) == set(student_before)  # batch statistics included
    assert moved(teacher, teacher_before) == (set(teacher_before) if teacher_moves else set())


@pytest.mark.parametrize("phase", PHASES)
def test_a_batch_in_parts_moves_a_network_by_the_average_of_their_gradients(make_network, batch, phase):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    images, labels = batch
    halves = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    of_phase = PHASES[phase]
    target = (
        [teacher(x, training=of_phase.teacher == "trained") for x, _ in halves] if of_phase.distills else [None] * 2
    )
    each = [updated(student, half, of_teacher) for half, of_teacher in zip(halves, target, strict=True)]
    make_distiller(phase, student, teacher, num_parts=2).train_on_batch(images, labels)
    assert_trained_to(student, {name: (each[0][name] + each[1][name]) / 2 for name in each[0]})


@pytest.mark.slow
def test_equal_parts_are_as_good_as_the_whole(make_network, batch):
    images, labels = (np.concatenate([half, half]) for half in batch)
    found = []
    for num_parts in (1, 2):
        student, teacher = make_network(4, seed=1), make_network(6, seed=2)
        logs = make_distiller("co_studying", student, teacher, weight_decay=0.01, num_parts=num_parts).train_on_batch(
            images, labels, return_dict=True
        )
        found.append(
            [v.numpy() for network in (student, teacher) for v in network.trainable_variables] + [*logs.values()]
        )
    for whole, in_parts in zip(*found, strict=True):
        np.testing.assert_allclose(in_parts, whole, atol=2e-6)


def test_network_without_groups_is_left_alone(make_network, batch):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    before, teacher_before = values(student), values(teacher)
    logs = make_distiller("full_precision", student, teacher, student_groups=[]).train_on_batch(
        *batch, return_dict=True
    )
    assert moved(student, before) == set()
    assert moved(teacher, teacher_before) == set(teacher_before)
    assert set(logs) == {"teacher_loss", "teacher_top1"}


@pytest.mark.parametrize("phase", PHASES)
def test_metrics_of_one_step_equal_the_numpy_restatement(make_network, batch, phase):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    images, labels = batch
    row = PHASES[phase]
    student_logits = make_network(4, seed=1)(images, training=True).numpy()
    teacher_logits = make_network(6, seed=2)(images, training=row.teacher == "trained").numpy()
    logs = make_distiller(phase, student, teacher, weight_decay=0.3).train_on_batch(*batch, return_dict=True)
    expected = {
        "student_loss": restated_loss(labels, student_logits, teacher_logits, row.distills),
        "student_top1": np.mean(student_logits.argmax(-1) == labels),
    }
    if row.teacher == "trained":
        expected["teacher_loss"] = restated_loss(labels, teacher_logits, student_logits, row.distills)
        expected["teacher_top1"] = np.mean(teacher_logits.argmax(-1) == labels)
    assert logs == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("phase", PHASES)
def test_smoothing_and_class_weights_are_of_the_labels_loss_alone(make_network, batch, phase):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    images, labels = batch
    row, options = PHASES[phase], {"smoothing": 0.1, "class_weights": [2.0, 1.0, 0.25]}
    logits = {
        "student": make_network(4, seed=1)(images, training=True).numpy(),
        "teacher": make_network(6, seed=2)(images, training=row.teacher == "trained").numpy(),
    }

    def expected(network, other):
        target = 0.9 * np.eye(3)[labels] + 0.1 / 3
        of_labels = -np.sum(target * log_softmax(logits[network]), axis=-1) * np.array([2.0, 1.0, 0.25])[labels]
        plain = restated_loss(labels, logits[network], logits[other], False)
        return np.mean(of_labels) + restated_loss(labels, logits[network], logits[other], row.distills) - plain

    label_loss = functools.partial(cross_entropy, **options)
    distiller = make_distiller(phase, student, teacher, label_loss=label_loss)
    logs = distiller.train_on_batch(*batch, return_dict=True)
    assert logs["student_loss"] == pytest.approx(expected("student", "teacher"), rel=1e-5)
    if row.teacher == "trained":
        assert logs["teacher_loss"] == pytest.approx(expected("teacher", "student"), rel=1e-5)


@pytest.mark.parametrize("phase", PHASES)
def test_label_weight_is_of_the_student_that_has_a_teacher(make_network, batch, phase):
    """A step of KD alone moves the last bias by T * k * the mean difference of the softened distributions."""
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    images, labels = batch
    row = PHASES[phase]
    student_logits = make_network(4, seed=1)(images, training=True).numpy()
    teacher_logits = make_network(6, seed=2)(images, training=row.teacher == "trained").numpy()
    before = student.get_layer("logits").bias.numpy()
    logs = make_distiller(phase, student, teacher, label_weight=0.0).train_on_batch(*batch, return_dict=True)
    of_labels = restated_loss(labels, student_logits, teacher_logits, False)
    both = restated_loss(labels, student_logits, teacher_logits, row.distills)
    assert logs["student_loss"] == pytest.approx(both - of_labels if row.distills else of_labels, rel=1e-5)
    if row.teacher == "trained":
        expected = restated_loss(labels, teacher_logits, student_logits, row.distills)
        assert logs["teacher_loss"] == pytest.approx(expected, rel=1e-5)
    if row.distills:
        p, q = (np.exp(log_softmax(logits / TEMPERATURE)) for logits in (student_logits, teacher_logits))
        way = -RATE * DISTILLATION_WEIGHT * TEMPERATURE * np.mean(p - q, axis=0)
        np.testing.assert_allclose(student.get_layer("logits").bias.numpy() - before, way, atol=1e-6)


@pytest.mark.parametrize("phase", PHASES)
def test_update_is_the_one_towards_the_other_networks_logits_as_constants(make_network, batch, phase):
    student, teacher = make_network(4, seed=1), make_network(6, seed=2)
    images, _ = batch
    row = PHASES[phase]
    student_logits = make_network(4, seed=1)(images, training=True).numpy() if row.distills else None
    teacher_logits = None
    if row.distills:
        teacher_logits = make_network(6, seed=2)(images, training=row.teacher == "trained").numpy()
    expected_student = updated(make_network(4, seed=1), batch, teacher_logits, weight_decay=0.2)
    expected_teacher = updated(make_network(6, seed=2), batch, student_logits, weight_decay=0.2)
    make_distiller(phase, student, teacher, weight_decay=0.2).train_on_batch(*batch)
    assert_trained_to(student, expected_student)
    if row.teacher == "trained":
        assert_trained_to(teacher, expected_teacher)


def test_each_group_moves_its_own_variables_by_its_own_optimizer(make_network, batch):
    student = make_network(4, seed=1)
    rates = {"kernel": 0.3, "beta": 0.02, "gamma": 0.0}

    def rate_of(name):
        return next((rate for word, rate in rates.items() if word in name), RATE)

    expected = updated(make_network(4, seed=1), batch, None, rate_of)
    words = [*rates, "bias"]
    groups = [
        group([v for v in student.trainable_variables if word in v.name], rates.get(word, RATE)) for word in words
    ]
    make_distiller("self_studying", student, None, student_groups=groups).train_on_batch(*batch)
    assert_trained_to(student, expected)


@pytest.mark.slow
def test_weight_decay_pulls_on_kernels_and_on_nothing_else(make_network, batch):

    def step(weight_decay):
        student = quantize_student(make_network(4, seed=1), QuantizationSpec())  # intervals are variables too
        kernels = [quantized.kernel for quantized in student.weights.values()]
        others = [v for v in student.model.variables if not any(v is kernel for kernel in kernels)]
        before = [v.numpy() for v in kernels]
        make_distiller("self_studying", student.model, None, weight_decay).train_on_batch(*batch)
        return before, [v.numpy() for v in kernels], [v.numpy() for v in others]

    kernels, free_kernels, free_others = step(0.0)
    _, decayed_kernels, decayed_others = step(0.5)
    for old, free, decayed in zip(kernels, free_kernels, decayed_kernels, strict=True):
        np.testing.assert_allclose(decayed - free, -RATE * 0.5 * old, atol=1e-5)
    for free, decayed in zip(free_others, decayed_others, strict=True):
        np.testing.assert_allclose(decayed, free, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_scaled_loss_trains_like_the_plain_one(make_network, batch, phase):
    """The scale is a power of two, which float32 multiplies and divides by exactly."""

    def trained(scales_loss):
        networks = make_network(4, seed=1), make_network(6, seed=2)
        distiller = make_distiller(phase, *networks, weight_decay=0.1, scales_loss=scales_loss)
        for _ in range(3):
            distiller.train_on_batch(*batch)
        return [value for network in networks for value in values(network).values()]

    for scaled, plain in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(scaled, plain, rtol=1e-6, atol=1e-7)


def test_step_whose_gradients_overflow_is_left_out(make_network, batch):
    student = make_network(4, seed=1)
    distiller = make_distiller("self_studying", student, None, scales_loss=True)
    student.get_layer("logits").kernel.assign(student.get_layer("logits").kernel * 1e4)
    distiller.student_loss_scale.scale.assign(2.0**127)
    before = {v.name: v.numpy() for v in student.trainable_variables}
    distiller.train_on_batch(*batch)
    assert not moved(student, values(student) | before)
    assert float(distiller.student_loss_scale.scale) == 2.0**126


@pytest.mark.slow
@pytest.mark.parametrize("scales_loss", [False, True])
def test_penalty_moves_the_student_and_is_not_in_the_loss_that_is_told(make_network, batch, scales_loss):
    def step(penalty):
        networks = make_network(4, seed=1), make_network(6, seed=2)
        kernel = networks[0].get_layer("conv").kernel
        options = {"student_penalty": lambda: 0.5 * tf.reduce_sum(kernel)} if penalty else {}
        distiller = make_distiller("co_studying", *networks, scales_loss=scales_loss, **options)
        logs = distiller.train_on_batch(*batch, return_dict=True)
        return logs, values(networks[0]), values(networks[1])

    (logs, student, teacher), (plain_logs, plain_student, plain_teacher) = step(True), step(False)
    assert logs == plain_logs
    for name, value in student.items():
        expected = plain_student[name] - (RATE * 0.5 if name.startswith("conv/") else 0.0)
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)
    for name, value in teacher.items():
        np.testing.assert_array_equal(value, plain_teacher[name], err_msg=name)


@pytest.mark.parametrize("scales_loss", [False, True])
def test_what_is_done_after_a_step_sees_the_moved_student_once_a_step(make_network, batch, scales_loss):
    student = make_network(4, seed=1)
    kernel, calls = student.get_layer("conv").kernel, tf.Variable(0)
    seen = tf.Variable(tf.zeros_like(kernel))

    def after_step():
        calls.assign_add(1)
        seen.assign(kernel)

    options = {"scales_loss": scales_loss, "after_student_step": after_step}
    distiller = make_distiller("self_studying", student, None, **options)
    first = kernel.numpy()
    for number in (1, 2):
        distiller.train_on_batch(*batch)
        assert calls.numpy() == number
        np.testing.assert_array_equal(seen, kernel)
    assert not np.array_equal(seen, first)
    if scales_loss:
        student.get_layer("logits").kernel.assign(student.get_layer("logits").kernel * 1e4)
        distiller.student_loss_scale.scale.assign(2.0**127)
        distiller.train_on_batch(*batch)
        assert calls.numpy() == 2  # the step was left out


class Halved(layers.Layer):
    """A layer of a user's own that asks a tensor in Python."""

    def call(self, inputs):
        if tf.reduce_max(tf.abs(inputs)) > 0:
            return inputs / 2
        return inputs


@pytest.mark.parametrize("phase", DISTILLING)
def test_teacher_may_have_layers_with_python_control_flow(phase, batch, make_network):
    student, teacher = make_network(2, 0), make_network(3, 1)
    own = tf_keras.Model(teacher.inputs, Halved()(teacher.outputs[0]))
    images, labels = batch
    before = values(student)
    history = make_distiller(phase, student, own).fit(images, labels, batch_size=4, verbose=0)
    assert np.isfinite(history.history["student_loss"][0])
    assert moved(student, before)


def test_change_of_a_step_is_bounded_where_a_group_has_a_bound():
    """Within the bound it is the optimizer's own, to the bit."""
    first, gradient = tf.constant([1.0, 1.0, 2.0, 0.5]), tf.constant([0.05, 5.0, -5.0, 0.0])
    free, bounded = tf.Variable(first), tf.Variable(first)
    for variable, bound in ((free, 0.0), (bounded, 0.1)):
        group = ParameterGroup(tf_keras.optimizers.SGD(1.0), [variable], bound)
        distiller._step([group], [gradient])
    np.testing.assert_array_equal(free, np.float32([0.95, -4.0, 7.0, 0.5]))
    np.testing.assert_array_equal(bounded, np.float32([0.95, 0.9, 2.2, 0.5]))
