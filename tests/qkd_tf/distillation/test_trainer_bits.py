"""Phases at widths of their own: what is carried over, what is chosen anew, and behind a kill."""

import numpy as np
import pytest
from tf_keras import layers

from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.phases import PHASES
from qkd_tf.distillation.progress import PhaseProgress
from qkd_tf.distillation.trainer import START, Events, Place, Trainer
from qkd_tf.experiment import PhaseSpec, QuantizationSpec, TrainingSpec
from qkd_tf.quantization.batch_norm import BatchNormEstimator
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.oscillation import to_integers
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage.run_folder import RunFolder
from tests.qkd_tf.distillation.runs import (
    Killed,
    assert_same_bits,
    checkpoints,
    kill_at_call,
    same_bits,
    values,
    without_seconds,
)

OWN = (2, 3)
ALL_BITS = ((8, 8), (4, 4), OWN)
SPEC = QuantizationSpec(*OWN, interval_gradient_share=1.0)
SELF_STUDYING, FULL_PRECISION = PHASES["self_studying"], PHASES["full_precision"]


@pytest.fixture(scope="module")
def spare():
    """The student at all widths, each with its first values, as tests have left it."""
    return []


@pytest.fixture
def network(chain):
    """network(*names): convolutions of these names, each with its BatchNormalization and ReLU, and logits."""

    def make(*names):
        convolutions = [
            layer
            for name in names
            for layer in (
                layers.Conv2D(3, 3, use_bias=False, name=name),
                layers.BatchNormalization(name=f"{name}_bn"),
                layers.ReLU(name=f"{name}_relu"),
            )
        ]
        normalization = layers.Rescaling(1 / 64, -2.0, name="normalization")
        return chain(normalization, *convolutions, layers.Flatten(name="flatten"), layers.Dense(5, name="logits"))

    return make


@pytest.fixture
def make_run(network, make_splits, randomize, spare):
    """make_run(folder, widths, epochs, seed, pretrained, ...): a `Trainer` of self_studying at each of these widths.

    First weights are those of the seed alone. `seen` has what `Events.calibrate_at` was called with: widths, weights of
    `plain`, intervals.
    """
    lent = []

    def make(folder, widths=(), epochs=1, seed=0, pretrained=(), **training):
        if not spare:
            made = [quantize_student(network("first", "middle"), SPEC.at(bits)) for bits in ALL_BITS]
            spare.append((made, [values(student.model) for student in made]))
        students, first = spare.pop()
        lent.append((students, first))
        for student, before in zip(students, first, strict=True):
            for variable, value in zip(student.model.variables, before, strict=True):
                variable.assign(value)
        at_bits, splits, seen = dict(zip(ALL_BITS, students, strict=True)), make_splits(), []
        own = at_bits[OWN]
        randomize(own.plain, seed)
        images = [batch for batch, _ in splits.calibration]
        run_folder = RunFolder(str(folder), ["--student=tiny"])
        run_folder.claim()

        def calibrate_at(student):
            calibrate(student, images, "minmax")
            (bits,) = (bits for bits, known in at_bits.items() if known is student)
            seen.append((bits, weights_of(student), student.intervals()))

        trainer = Trainer(
            TrainingSpec(tuple(PhaseSpec("self_studying", epochs, 0.05, bits=bits) for bits in widths), **training),
            Networks(own, None, frozenset(pretrained), at_bits),
            splits,
            Place(run_folder),
            Events(lambda: calibrate(own, images, "minmax"), calibrate_at=calibrate_at),
        )
        trainer.seen, trainer.at_bits, trainer.images = seen, at_bits, images
        return trainer

    yield make
    spare.extend(lent)


@pytest.fixture
def take_over(make_run, tmp_path):
    """take_over(left, taken, ...): a `Trainer` that turned from a random student at `left` to one at `taken`."""

    def take_over(left, taken, **options):
        trainer = make_run(tmp_path / "run", **options)
        for bits in (left, taken):
            trainer.at_bits[bits].copy_plain_from(trainer.at_bits[OWN])
        trainer._turn_to(trainer.at_bits[left])
        calibrate(trainer._student, trainer.images, "minmax")
        for number, weight in enumerate(trainer._student.weights.values()):
            weight.kernel.assign(np.random.default_rng(number).normal(0, 0.3, weight.kernel.shape))
        trainer._turn_to(trainer.at_bits[taken])
        trainer._enter(SELF_STUDYING, SELF_STUDYING, trainer.at_bits[left], 1)
        return trainer

    return take_over


def weights_of(student):
    """Weights of `plain` by layer."""
    return {layer.name: layer.get_weights() for layer in student.plain.layers if layer.weights}


def assert_same_weights(got, expected):
    assert got.keys() == expected.keys()
    for name in expected:
        assert_same_bits(got[name], expected[name])


def latent(student):
    return {name: weight.kernel.numpy() for name, weight in student.weights.items()}


def statistics(weights):
    return [array for name, arrays in weights.items() if name.endswith("_bn") for array in arrays[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("left, taken", [((8, 8), (4, 4)), ((4, 4), OWN), (OWN, (8, 8))])
def test_student_of_other_widths_takes_over_weights_and_chooses_intervals_by_them(take_over, left, taken):
    trainer = take_over(left, taken, freeze_threshold_start=0.1)
    ((bits, plain, chosen),) = trainer.seen
    assert bits == taken and trainer._student.intervals() == chosen
    learnt = latent(trainer.at_bits[left])
    assert_same_bits(latent(trainer._student).values(), learnt.values())
    assert_same_bits([plain[name][0] for name in learnt], learnt.values())
    for name, weight in trainer._student.weights.items():  # freezing begins anew
        codes = to_integers(weight.kernel, weight.interval, weight.grid)
        np.testing.assert_array_equal(trainer._freezing._states[name][0].numpy(), codes)
        assert np.any(codes)


@pytest.mark.parametrize("left, taken", [((8, 8), (4, 4)), ((4, 4), OWN), (OWN, (8, 8))])
def test_full_precision_outlives_a_change_of_widths(take_over, randomize, left, taken):
    """Shifted statistics and the report compare with it."""
    trainer = take_over(left, taken)
    after = {bits: weights_of(trainer.at_bits[bits]) for bits in (OWN, taken)}
    randomize(trainer.at_bits[OWN].plain, 0)
    for weights in after.values():
        assert_same_weights(weights, weights_of(trainer.at_bits[OWN]))


@pytest.mark.parametrize("pretrained", [(), ("student",)])
def test_intervals_are_chosen_by_statistics_of_the_weights_or_by_shifted_ones(take_over, pretrained):
    """A student that came with weights and trains on few pictures keeps those that are not of these pictures alone."""
    trainer = take_over((8, 8), (4, 4), pretrained=pretrained, batch_norm_batches=2)
    ((_, plain, _),) = trainer.seen
    expected = trainer.at_bits[4, 4].float_copy()
    for name, arrays in plain.items():
        expected.get_layer(name).set_weights(arrays)
    BatchNormEstimator(expected).estimate(images for images, _ in trainer._splits.train(1).take(2))
    names = [name for name in plain if name.endswith("_bn")]
    measured = statistics({name: expected.get_layer(name).get_weights() for name in names})
    left = trainer.at_bits[8, 8]
    carried = [v.numpy() for name in names for v in (left.twin(name).moving_mean, left.twin(name).moving_variance)]
    assert all(same_bits(statistics(plain), measured)) == (not pretrained)
    assert all(same_bits(statistics(plain), carried)) == bool(pretrained)
    latents = [trainer._student.twin(name) for name in names]
    assert_same_bits([v.numpy() for bn in latents for v in (bn.moving_mean, bn.moving_variance)], statistics(plain))


def test_float_phase_takes_what_other_widths_have_learnt_and_gives_it_on(take_over):
    trainer = take_over(OWN, (8, 8))
    own, wide, narrow = (trainer.at_bits[bits] for bits in (OWN, (8, 8), (4, 4)))
    trainer._turn_to(own)
    trainer._enter(FULL_PRECISION, SELF_STUDYING, wide, 2)
    learnt = latent(wide)
    assert_same_bits([weights_of(own)[name][0] for name in learnt], learnt.values())
    trainer._turn_to(narrow)
    trainer._enter(SELF_STUDYING, FULL_PRECISION, own, 3)
    assert_same_bits(latent(narrow).values(), learnt.values())
    assert_same_weights(weights_of(narrow), weights_of(own))
    assert [bits for bits, *_ in trainer.seen] == [(8, 8), (4, 4)]


@pytest.mark.parametrize("bits", ALL_BITS)
def test_rules_and_widths_of_the_ends_are_the_same_in_all_phases(network, bits):
    spec = QuantizationSpec(*OWN, first_layer_bits=7, bits_rule=("ruled=w5a6",))
    plan = make_plan(network("first", "middle", "ruled"), spec.at(bits))
    kernels = {name: grid.num_bits for name, grid in plan.weight_grids.items()}
    assert kernels == {"first": 7, "middle": bits[0], "ruled": 5, "logits": 8}
    tensors = {name: grid.num_bits for name, grid in plan.output_grids.items() if name.endswith("relu")}
    assert tensors == {"first_relu": bits[1], "middle_relu": 6, "ruled_relu": 8}


@pytest.mark.slow
def test_the_same_widths_in_all_phases_train_as_without_the_flag(tmp_path, make_run):
    def trained(name, bits):
        trainer = make_run(tmp_path / name, (bits, bits))
        return without_seconds(trainer.run()), values(trainer._student.model)

    (plain, expected), (named, got) = trained("plain", None), trained("named", OWN)
    assert_same_bits(got, expected)
    widths = {"weight_bits": OWN[0], "activation_bits": OWN[1]}
    assert [row["phase"] for row in plain] == ["self_studying"] * 2
    assert named == [
        row | widths | {"phase": f"self_studying{turn}"} for row, turn in zip(plain, ("", "_2"), strict=True)
    ]


@pytest.mark.slow
def test_run_that_is_killed_at_every_width_and_between_them_goes_on_to_the_same_bits(
    tmp_path, capsys, monkeypatch, make_run
):
    """6 steps at 8 bits, then 6 at the own widths, with all that a checkpoint has to hold of a quantized student."""
    low_bit = {"freeze_threshold_start": 0.009, "freeze_threshold_end": 0.001, "weights_ema": 0.5}
    options = {"widths": ((8, 8), OWN), "epochs": 2, "batch_norm_batches": 2} | low_bit
    whole = make_run(tmp_path / "whole", **options)
    results = whole.run()
    assert whole._student is whole.at_bits[OWN]
    told = capsys.readouterr().out
    for result, label, bits in zip(results, ("self_studying", "self_studying_2"), ((8, 8), OWN), strict=True):
        assert (result["phase"], result["weight_bits"], result["activation_bits"]) == (label, *bits)
        assert f"{label}: " in told and f"{label} at w{bits[0]}a{bits[1]}: epoch {result['best_epoch']} of 2" in told
    for owner, name, call, newest in (
        (PhaseProgress, "on_train_batch_end", 5, "phase0_epoch1_step0"),  # in the second epoch at 8 bits
        (Trainer, "_take_over", 1, "phase1_epoch0_step0"),  # exactly between the widths
        (PhaseProgress, "on_train_batch_end", 5, "phase1_epoch1_step0"),
    ):
        with monkeypatch.context() as patch:
            kill_at_call(patch, owner, name, call)
            with pytest.raises(Killed):
                make_run(tmp_path / "run", seed=0 if newest.startswith("phase0") else 50, **options).run()
        assert max(checkpoints(tmp_path / "run")) == newest
    resumed = make_run(tmp_path / "run", seed=51, **options)  # other first weights: all must come from checkpoints
    assert without_seconds(resumed.run()) == without_seconds(results)
    for got, expected in (
        (resumed._student.model, whole._student.model),
        (resumed._student.plain, whole._student.plain),
    ):
        assert_same_bits(values(got), values(expected))


def test_checkpoint_of_one_width_is_never_taken_for_that_of_another(tmp_path, make_run):
    trainer = make_run(tmp_path / "run")
    trainer._turn_to(trainer.at_bits[8, 8])
    trainer._save({**START, "phase": 1})
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    for bits in ((4, 4), OWN):
        trainer._turn_to(trainer.at_bits[bits])
        with pytest.raises(AssertionError, match="not bound to checkpointed values"):
            trainer._restore(path)
    trainer._turn_to(trainer.at_bits[8, 8])
    trainer._restore(path)
