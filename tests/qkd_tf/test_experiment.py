import dataclasses
import math

import pytest

from qkd_tf import flags
from qkd_tf.experiment import (
    BitsRule,
    DataSpec,
    Experiment,
    ExperimentError,
    NetworkSpec,
    PhaseSpec,
    PixelNormalization,
    QuantizationSpec,
    TargetSpec,
    TrainingSpec,
    bit_widths,
)
from qkd_tf.experiment.training import FEW_PICTURES
from tests.saved_flags import saved_flags

PIXELS = PixelNormalization((128.0,), (64.0,))
SELF_STUDYING = PhaseSpec("self_studying", 1, 0.01)


def experiment(phases=(SELF_STUDYING,), teacher=None, student_weights="", mean=128.0):
    pixels = PixelNormalization((mean,), (64.0,))
    return Experiment(
        "runs/x",
        0,
        DataSpec("digits"),
        NetworkSpec("convnet_small", pixels, student_weights),
        teacher,
        QuantizationSpec(),
        TrainingSpec(phases),
    )


def complaint(make):
    """The one line that a user reads."""
    with pytest.raises(ExperimentError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "kind, field, wrong, edges",
    [
        (DataSpec, "validation_fraction", (0.0, 1.0, -0.1, 1.5, math.nan), (0.001, 0.999)),
        (DataSpec, "batch_size", (0, -1), (1,)),
        (DataSpec, "crop_padding", (-1,), (0,)),
        (DataSpec, "image_size", (-1,), (0, 1)),
        (DataSpec, "max_steps", (-1,), (0, 1)),
        (DataSpec, "max_eval_images", (-1,), (0, 1)),
        (QuantizationSpec, "weight_bits", (1, 9, 0, -4), (2, 8)),
        (QuantizationSpec, "activation_bits", (1, 9), (2, 8)),
        (QuantizationSpec, "first_layer_bits", (1, 9), (2, 8)),
        (QuantizationSpec, "last_layer_bits", (1, 9), (2, 8)),
        (QuantizationSpec, "residual_bits", (1, 9), (2, 8)),
        (QuantizationSpec, "calibration_batches", (0, -1), (1,)),
        (QuantizationSpec, "interval_gradient_share", (0.0, -0.1, 1.1, math.nan), (1e-3, 1.0)),
        (QuantizationSpec, "ewgs_scale", (-1e-9, 1.0, math.nan), (0.0, 0.999)),
        (TrainingSpec, "steps_per_execution", (0, -1), (1, 100)),
        (TrainingSpec, "batch_norm_batches", (-2,), (-1, 0, 1)),
        (TrainingSpec, "dampening", (-1e-9, math.inf, math.nan), (0.0, 0.1, 10.0)),
        (TrainingSpec, "freeze_threshold_start", (-1e-9, 1.1, math.nan), (0.0, 0.01, 1.0)),
        (TrainingSpec, "freeze_threshold_end", (-1e-9, 1.1, math.nan), (0.0, 1.0)),
        (TrainingSpec, "weights_ema", (-1e-9, 1.0, math.nan), (0.0, 0.9999)),
        (TrainingSpec, "temperature", (0.0, -2.0, math.nan), (0.01,)),
        (TrainingSpec, "momentum", (-0.1, 1.0, math.nan), (0.0, 0.99)),
        (TrainingSpec, "weight_decay", (-1e-9, math.nan), (0.0,)),
        (TrainingSpec, "distillation_weight", (-1e-9, math.nan), (0.0,)),
        (TrainingSpec, "distillation_weight_end", (-1e-9, math.inf, math.nan), (None, 0.0, 2.0)),
        (TrainingSpec, "label_weight", (-1e-9, math.inf, math.nan), (0.0, 2.0)),
        (TrainingSpec, "feature_distillation_weight", (-1e-9, math.inf, math.nan), (0.0, 2.0)),
        (TrainingSpec, "teacher_lr_ratio", (-1e-9, math.nan), (0.0,)),
        (TrainingSpec, "weight_interval_lr_ratio", (-1e-9, math.nan), (0.0,)),
        (TrainingSpec, "activation_interval_lr_ratio", (-1e-9, math.nan), (0.0,)),
    ],
)
def test_value_out_of_range_is_told_by_flag_and_value(kind, field, wrong, edges):
    given = {DataSpec: {"name": "digits"}, TrainingSpec: {"phases": (SELF_STUDYING,)}}.get(kind, {})
    for value in wrong:
        assert f"--{field}={value} " in complaint(lambda value=value: kind(**given, **{field: value}))
    for value in edges:
        assert getattr(kind(**given, **{field: value}), field) == value


@pytest.mark.parametrize(
    "make, value, known",
    [
        (lambda: QuantizationSpec(interval_init="x"), "'x'", "minmax, lsq, mse"),
        (lambda: QuantizationSpec(interval_gradient_scale="x"), "'x'", "none, lsq"),
        (lambda: QuantizationSpec(equalize_channels="x"), "'x'", "auto, on, off"),
        (lambda: TrainingSpec((SELF_STUDYING,), optimizer="lion"), "'lion'", "sgd, adam"),
        (lambda: TrainingSpec((SELF_STUDYING,), keep_epoch="first"), "'first'", "best, last"),
        (lambda: TrainingSpec((SELF_STUDYING,), batch_norm_statistics="all"), "'all'", "auto, batches, shift"),
        (lambda: TrainingSpec((SELF_STUDYING,), mixed_precision="fp8"), "'fp8'", "float32, bfloat16, float16"),
        (lambda: PhaseSpec("x", 1, 0.1), "'x'", "self_studying, co_studying, tutoring"),
    ],
)
def test_unknown_word_is_answered_with_the_known_ones(make, value, known):
    message = complaint(make)
    assert value in message and known in message


@pytest.mark.parametrize(
    "epochs, rate, part",
    [(0, 0.1, "0 epochs"), (-1, 0.1, "-1 epochs"), (1, 0.0, "0.0"), (1, -0.1, "-0.1"), (1, math.nan, "nan")],
)
def test_phase_names_itself_in_its_errors(epochs, rate, part):
    message = complaint(lambda: PhaseSpec("tutoring", epochs, rate))
    assert "tutoring" in message and part in message


@pytest.mark.parametrize("mean, std", [((1.0,), (1.0, 2.0)), ((), ()), ((1.0,), (0.0,)), ((1.0,), (-3.0,))])
def test_normalization_wants_as_many_means_as_positive_deviations(mean, std):
    assert "std" in complaint(lambda: PixelNormalization(mean, std))


@pytest.mark.parametrize("mean", [127.5, -1.0, 255.0])
def test_student_mean_must_be_a_pixel_that_can_be_a_zero_point(mean):
    assert "--student_pixel_mean=" in complaint(lambda: experiment(mean=mean))


@pytest.mark.parametrize("mean", [0.0, 254.0])
def test_student_mean_may_be_any_pixel_but_the_brightest(mean):
    assert experiment(mean=mean).student.normalization.mean == (mean,)


def test_student_has_one_mean_for_all_channels():
    pixels = PixelNormalization((1.0, 2.0, 3.0), (64.0, 64.0, 64.0))
    message = complaint(lambda: dataclasses.replace(experiment(), student=NetworkSpec("convnet_small", pixels)))
    assert "--student_pixel_mean=1.0,2.0,3.0" in message


@pytest.mark.parametrize("phase", ["co_studying", "tutoring"])
def test_distilling_phase_needs_a_teacher(phase):
    phases = (SELF_STUDYING, PhaseSpec(phase, 1, 0.01))
    message = complaint(lambda: experiment(phases))
    assert phase in message and "--teacher" in message
    experiment(phases, teacher=NetworkSpec("convnet_large", PIXELS))


@pytest.mark.parametrize("phase", ["self_studying", "full_precision"])
def test_other_phases_need_none(phase):
    experiment((PhaseSpec(phase, 1, 0.01), SELF_STUDYING))


def test_some_phase_must_quantize():
    assert "full_precision" in complaint(lambda: experiment((PhaseSpec("full_precision", 1, 0.1),)))
    experiment(())  # calibration alone


@pytest.mark.parametrize(
    "asked, phases, expected",
    [("auto", (), 1.0), ("auto", (SELF_STUDYING,), 3.0), ("on", (SELF_STUDYING,), 1.0), ("off", (), None)],
)
def test_calibration_alone_equalizes_all_channels_and_training_uneven_ones_unless_told(asked, phases, expected):
    quantization = QuantizationSpec(equalize_channels=asked)
    assert dataclasses.replace(experiment(phases), quantization=quantization).equalized_spread == expected


@pytest.mark.parametrize(
    "asked, batches, pretrained, calibrated, on_few, on_many",
    [
        ("auto", -1, {"student"}, True, True, False),
        ("auto", -1, {"teacher"}, False, False, False),
        ("auto", 0, {"student"}, False, False, False),
        ("shift", -1, set(), True, True, True),
        ("shift", 0, set(), False, False, False),
        ("batches", -1, {"student"}, False, False, False),
    ],
)
def test_statistics_of_weights_that_came_are_shifted_after_calibration_and_on_few_pictures_unless_told(
    asked, batches, pretrained, calibrated, on_few, on_many
):
    spec = TrainingSpec((SELF_STUDYING,), batch_norm_statistics=asked, batch_norm_batches=batches)
    came = frozenset(pretrained)
    assert spec.shifts_calibrated_statistics(came) == calibrated
    assert spec.shifts_trained_statistics(came, FEW_PICTURES - 1) == on_few
    assert spec.shifts_trained_statistics(came, FEW_PICTURES) == on_many
    assert dataclasses.replace(spec, phases=()).shifts_trained_statistics(came, FEW_PICTURES) == calibrated


def test_full_precision_must_have_something_to_train():
    phases = (PhaseSpec("full_precision", 1, 0.1), SELF_STUDYING)
    made = dataclasses.replace(experiment(), student=NetworkSpec("in_memory:trained:x", PIXELS))
    told = complaint(lambda: dataclasses.replace(made, training=TrainingSpec(phases)))
    assert told.startswith("phase full_precision has nothing to train: every network is pretrained")


def test_experiment_is_frozen_and_equal_by_value():
    assert experiment() == experiment()
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment().seed = 1


def test_error_is_a_value_error():
    assert issubclass(ExperimentError, ValueError)


def test_xla_and_mixed_precision_together_are_refused():
    message = complaint(lambda: TrainingSpec((SELF_STUDYING,), jit_compile=True, mixed_precision="bfloat16"))
    assert "--jit_compile" in message and "--mixed_precision=bfloat16" in message


@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker", "tpu"])
def test_xla_compiles_the_step_of_one_device(strategy):
    message = complaint(lambda: TrainingSpec((SELF_STUDYING,), jit_compile=True, strategy=strategy))
    assert "--jit_compile" in message and f"--strategy={strategy}" in message


def test_an_unknown_strategy_is_named():
    assert "'two'" in complaint(lambda: TrainingSpec((SELF_STUDYING,), strategy="two"))


def test_threshold_of_freezing_never_rises():
    message = complaint(lambda: TrainingSpec((SELF_STUDYING,), freeze_threshold_start=0.1, freeze_threshold_end=0.2))
    assert "--freeze_threshold_end=0.2" in message and "--freeze_threshold_start=0.1" in message


@pytest.mark.parametrize(
    "phase, end, refused",
    [("tutoring", None, True), ("co_studying", 0.0, True), ("tutoring", 1.0, False), ("self_studying", None, False)],
)
def test_neither_labels_nor_teacher_leave_nothing_to_learn_from(phase, end, refused):
    def neither():
        weights = {"label_weight": 0.0, "distillation_weight": 0.0, "distillation_weight_end": end}
        return TrainingSpec((SELF_STUDYING, PhaseSpec(phase, 1, 0.01)), **weights)

    if refused:
        message = complaint(neither)
        assert "--label_weight=0.0" in message and "--distillation_weight=0.0" in message
    else:
        assert neither().last_distillation_weight == (end or 0.0)


@pytest.mark.parametrize(
    "options", [{"label_weight": 0.5}, {"distillation_weight_end": 0.0}, {"feature_distillation_weight": 0.1}]
)
def test_note_tells_of_weights_of_distillation_where_none_is(options):
    (name,) = options
    told = f"--{name}={options[name]} has no effect"
    for phase, teacher in (("self_studying", None), ("tutoring", TAUGHT)):
        phases = (PhaseSpec(phase, 1, 0.01),)
        made = dataclasses.replace(experiment(phases, teacher), training=TrainingSpec(phases, **options))
        assert any(told in note for note in made.notes) == (phase == "self_studying")


@pytest.mark.parametrize(
    "other, flag",
    [
        ({"training": TrainingSpec(())}, "--phases="),
        ({"training": TrainingSpec((SELF_STUDYING,), freeze_threshold_start=0.1)}, "--freeze_threshold_start"),
        ({"target": TargetSpec(max_flash_bytes=1000)}, "--bits=auto"),
    ],
)
def test_normalized_weights_need_training_and_cannot_be_frozen(other, flag):
    def both():
        spec = QuantizationSpec(normalize_weights="layer", finds_bits=flag == "--bits=auto")
        return dataclasses.replace(experiment(), quantization=spec, **other)

    message = complaint(both)
    assert f"--normalize_weights=layer and {flag} cannot be combined: " in message


def test_ewgs_and_mixed_precision_together_are_refused():
    def both():
        training = TrainingSpec((SELF_STUDYING,), mixed_precision="bfloat16")
        return dataclasses.replace(experiment(), quantization=QuantizationSpec(ewgs_scale=1e-3), training=training)

    message = complaint(both)
    assert "--ewgs_scale=0.001" in message and "--mixed_precision=bfloat16" in message


@pytest.mark.parametrize(
    "bits, labels",
    [
        ([None] * 4, ["self_studying", "tutoring", "self_studying", "self_studying"]),
        ([(8, 8), (4, 4), (4, 4), None], ["self_studying", "tutoring", "self_studying_2", "self_studying_3"]),
    ],
)
def test_phases_of_one_name_are_numbered_where_they_have_widths(bits, labels):
    names = ("self_studying", "tutoring", "self_studying", "self_studying")
    phases = tuple(PhaseSpec(name, 1, 0.01, bits=width) for name, width in zip(names, bits, strict=True))
    training = TrainingSpec(phases)
    assert training.phase_labels == labels
    assert training.bits == [width for width in ((8, 8), (4, 4)) if width in bits]


def test_other_widths_leave_all_but_the_uniform_ones():
    spec = QuantizationSpec(2, 3, 7, 6, 5, ("a=w4",), narrow_range=False)
    assert (spec.bits, spec.at((8, 4))) == ((2, 3), QuantizationSpec(8, 4, 7, 6, 5, ("a=w4",), narrow_range=False))


def test_float_phase_has_no_widths():
    message = complaint(lambda: PhaseSpec("full_precision", 1, 0.1, bits=(8, 8)))
    assert message == "--phase_bits: phase full_precision trains in float; its entry is 32"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("block_1_.*=w4a8", BitsRule("block_1_.*", 4, 8)),
        ("stem=w8", BitsRule("stem", 8, None)),
        ("a=b=a2", BitsRule("a=b", None, 2)),
    ],
)
def test_bits_rule_is_read_and_written(text, expected):
    assert BitsRule.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text, part",
    [
        ("stem", "'regex=w4a8'"),
        ("stem=", "'regex=w4a8'"),
        ("=w4", "'regex=w4a8'"),
        ("stem=4", "'regex=w4a8'"),
        ("stem=a4w4", "'regex=w4a8'"),
        ("(=w4", "not a regular expression"),
        ("stem=w9", "2 to 8"),
        ("stem=a1", "2 to 8"),
    ],
)
def test_bits_rule_of_another_form_is_refused(text, part):
    message = complaint(lambda: QuantizationSpec(bits_rule=(text,)))
    assert f"--bits_rule={text}" in message and part in message


@pytest.mark.parametrize(
    "phases, options, origin",
    [
        (("self_studying",), {}, "random"),
        (("full_precision", "self_studying"), {}, "trained"),
        (("self_studying",), {"student_weights": "a.h5"}, "weights"),
        ((), {"student_weights": "a.h5"}, "weights"),
    ],
)
def test_origin_of_full_precision(phases, options, origin):
    specs = tuple(PhaseSpec(name, 1, 0.01) for name in phases)
    assert experiment(specs, **options).full_precision_origin == origin


def test_builder_may_have_given_weights():
    made = experiment()
    student = dataclasses.replace(made.student, name="nets:build")
    assert dataclasses.replace(made, student=student).full_precision_origin == "builder"


TAUGHT = NetworkSpec("convnet_large", PIXELS, "teacher.h5")
UNTAUGHT = NetworkSpec("convnet_large", PIXELS)


@pytest.mark.parametrize(
    "names, teacher, begins",
    [
        (["self_studying"], TAUGHT, False),
        (["tutoring"], None, False),
        (["tutoring"], TAUGHT, True),
        (["co_studying"], UNTAUGHT, True),
        (["self_studying", "tutoring"], UNTAUGHT, True),
        (["full_precision", "tutoring"], TAUGHT, True),  # that phase leaves it as it is
        (["full_precision", "tutoring"], UNTAUGHT, False),  # and trains this one
        (["tutoring", "full_precision", "co_studying"], UNTAUGHT, True),
        (["self_studying", "full_precision", "co_studying"], UNTAUGHT, False),
    ],
)
def test_teacher_is_looked_at_where_it_teaches_as_it_came(names, teacher, begins):
    phases = tuple(PhaseSpec(name, 1, 0.01) for name in names)
    if teacher is None:
        assert "needs a teacher" in complaint(lambda: experiment(phases, teacher))
    else:
        assert experiment(phases, teacher).teacher_begins == begins


@pytest.mark.parametrize(
    "name, weights, unnamed, by_chance",
    [
        ("in_memory:untrained:x", "", True, True),
        ("in_memory:untrained:x", "w.h5", False, False),
        ("in_memory:trained:x", "", False, False),
        ("mine:build", "", False, False),  # its weights are of the seed, or its own
        ("model.keras", "", False, False),
        ("resnet8", "", False, True),
        ("resnet8", "w.h5", False, False),
    ],
)
def test_weights_of_chance_count_where_the_seed_repeats_them(name, weights, unnamed, by_chance):
    """A model in memory is built before the run's seed is set, by a program that need not set one."""
    teacher = NetworkSpec(name, PIXELS, weights)
    made = experiment((PhaseSpec("tutoring", 1, 0.01),), teacher)
    assert made.unnamed_weights == ({"teacher"} if unnamed else set())
    assert teacher.starts_by_chance == by_chance


@pytest.mark.parametrize(
    "student, weights, teacher, left_alone",
    [
        ("model.keras", "", None, set()),
        ("model.keras", "", TAUGHT, {"teacher"}),
        ("model.keras", "", UNTAUGHT, set()),
        ("convnet_small", "w.h5", None, set()),
        ("model.keras", "w.h5", TAUGHT, {"teacher"}),
        ("convnet_small", "w.h5", UNTAUGHT, {"student"}),  # it is the teacher that the phase is for
        ("convnet_small", "", TAUGHT, {"teacher"}),
        ("in_memory:untrained:x", "", None, set()),
        ("in_memory:trained:x", "", UNTAUGHT, {"student"}),
    ],
)
def test_full_precision_trains_a_student_from_the_weights_it_has(student, weights, teacher, left_alone):
    came = {"student"} if weights or student in ("model.keras", "in_memory:trained:x") else set()
    phases = PhaseSpec("full_precision", 1, 0.1), SELF_STUDYING
    made = dataclasses.replace(experiment(), teacher=teacher, student=NetworkSpec(student, PIXELS, weights))
    assert made.pretrained == made.with_weights == came | ({"teacher"} if teacher is TAUGHT else set())
    assert made.full_precision_origin == ("weights" if came else "random")
    made = dataclasses.replace(made, training=TrainingSpec(phases))
    assert made.pretrained == left_alone
    assert made.full_precision_origin == ("weights" if "student" in left_alone else "trained")
    assert made.continues_in_float == bool(came - left_alone)
    assert any("few for a student" in note for note in made.notes_on(600)) == ("student" in left_alone)


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
    notes = [note for note in experiment.notes_on(num_train) if "few for a student" in note]
    assert len(notes) == told and all(f"{num_train:,} training images" in n and "0.001" in n for n in notes)


@pytest.mark.parametrize("weights, fraction, told", [("a.h5", 0.2, True), ("a.h5", 0.0, False), ("", 0.2, False)])
def test_student_may_know_the_test_pictures_that_are_cut_off(weights, fraction, told):
    data = DataSpec("folder:my/pictures", test_fraction=fraction)
    notes = dataclasses.replace(experiment((), student_weights=weights), data=data).notes_on(50_000)
    assert len(notes) == told and all("the test result is too good; put pictures" in note for note in notes)
    assert all("into my/pictures/test" in note for note in notes)


def test_mirrored_pictures_are_told_where_something_trains():
    data = DataSpec("folder:pictures")
    told = [dataclasses.replace(experiment(phases), data=data).notes_on(50_000) for phases in ((SELF_STUDYING,), ())]
    assert [len(notes) for notes in told] == [2, 0] and "pictures are mirrored" in told[0][0]


@pytest.mark.parametrize(
    "data, told",
    [
        ({"name": "folder:pictures"}, True),
        ({"name": "folder:pictures", "crop_padding": 0}, False),
        ({"name": "folder:pictures", "crop_padding": 4}, False),
        ({"name": "folder:pictures", "image_size": 96}, False),  # a crop of a larger picture
        ({"name": "folder:pictures", "image_size": 96, "resize": "squash"}, True),
        ({"name": "digits"}, False),
    ],
)
def test_black_borders_that_nobody_asked_for_are_told(data, told):
    assert any("black fills" in note for note in DataSpec(**data).notes) == told


@pytest.mark.parametrize(
    "student, weights, given, found",
    [
        ("model.keras", "", None, 0),
        ("in_memory:trained:x", "", None, 0),
        ("nets:build", "w.h5", None, 0),
        ("nets:build", "", None, None),
        ("resnet20", "w.h5", None, None),
        ("model.keras", "", 4, 4),
    ],
)
def test_a_trained_model_of_the_users_own_sees_no_black_borders(student, weights, given, found):
    made = dataclasses.replace(
        experiment(),
        student=NetworkSpec(student, PIXELS, weights),
        data=DataSpec("folder:pictures", crop_padding=given),
    )
    assert made.on_images(50_000).data.crop_padding == found


@pytest.mark.parametrize(
    "options, mirrors, padding",
    [
        ({}, False, 0),
        ({"horizontal_flip": True, "crop_padding": 2}, True, 2),
        ({"student_augmentation": False}, True, 4),  # the student's layers are left out
    ],
)
def test_beside_a_students_own_augmentation_pictures_change_only_as_asked(options, mirrors, padding):
    made = dataclasses.replace(experiment(), data=DataSpec("folder:pictures", **options))
    found = made.for_student(True).data
    assert (found.mirrors, found.padding(32, 32)) == (mirrors, padding)
    assert bool(found.notes) == ("student_augmentation" in options)
    assert made.for_student(False) == made


@pytest.mark.parametrize(
    "num_train, batch_size, options, told",
    [
        (432, 128, {}, "only 3 steps, of 128 images: with --batch_size=16 it would have 27"),
        (200, 128, {}, "only 1 step, of 128 images: with --batch_size=8"),
        (1_279, 128, {}, "only 9 steps"),
        (1_280, 128, {}, None),
        (40, 8, {}, None),  # no smaller batch is worth having
        (432, 128, {"max_steps": 2}, None),  # a trial
    ],
)
def test_epochs_of_few_steps_are_told_with_a_batch_that_fits(num_train, batch_size, options, told):
    data = DataSpec("digits", batch_size=batch_size, **options)
    notes = dataclasses.replace(experiment(), data=data).notes_on(num_train)
    assert notes == [] if told is None else len(notes) == 1 and told in notes[0]
    assert dataclasses.replace(experiment(()), data=data).notes_on(num_train) == []


@pytest.mark.parametrize(
    "given, parts, num_train, found, steps",
    [
        ([], 1, 1_280, 128, 10),
        ([], 1, 1_279, 64, 19),
        ([], 1, 200, 8, 25),
        ([], 1, 9, 8, 1),
        ([], 1, 3, 2, 1),
        ([], 16, 200, 16, 12),  # a batch is run in equal parts
        ([128], 1, 200, 128, 1),
        ([32], 1, 200, 32, 6),
    ],
)
def test_batch_that_is_left_open_gives_an_epoch_enough_steps(given, parts, num_train, found, steps):
    sizes = [f"--batch_size={size}" for size in given]
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x", f"--gradient_accumulation_steps={parts}", *sizes])
        made = flags.experiment_from_flags().on_images(num_train)
    assert (made.data.batch_size, num_train // found) == (found, steps)
    chosen = not given and found < 128
    assert made.data.reading_batch == (128 if chosen else 0)  # calibration and tests are as with the default
    assert made.on_images(num_train) == made
    told = f"--batch_size is {found} unless it is given, so that an epoch has {steps} step{'s' * (steps > 1)}"
    assert any(told in note for note in made.notes_on(num_train)) == chosen


@pytest.mark.parametrize("num_replicas, found", [(1, 8), (4, 8), (16, 16), (3, 128)])  # 3 is refused, as ever
def test_batch_that_is_left_open_can_be_divided_among_replicas(num_replicas, found):
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x"])
        made = flags.experiment_from_flags().on_images(200, num_replicas)
    assert made.data.batch_size == found


@pytest.mark.parametrize("bits, widths", [("w4a8", (4, 8)), ("W4A8", (4, 8)), ("3", (3, 3)), ("w2a2", (2, 2))])
def test_bit_widths_are_two_or_one_for_both(bits, widths):
    assert bit_widths(bits, "bits") == widths


@pytest.mark.parametrize(
    "weights, rates, num_train, found",
    [(True, [], 9_999, 0.001), (True, [], 10_000, 0.01), (False, [], 600, 0.01), (True, ["0.01"], 600, 0.01)],
)
def test_rate_that_is_left_open_fits_the_weights_and_the_images(weights, rates, num_train, found):
    options = ["--student_weights=w.h5", "--student_weights_mean=0", "--student_weights_std=1"] if weights else []
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x", *options, *(f"--learning_rates={rate}" for rate in rates)])
        experiment = flags.experiment_from_flags().on_images(num_train)
    assert {phase.learning_rate for phase in experiment.training.phases} == {found}
    notes = experiment.notes_on(num_train)
    assert any("its learning rate is 0.001" in note for note in notes) == (found == 0.001)
    assert any("lower --learning_rates=0.01 to 0.001" in note for note in notes) == bool(rates)


@pytest.mark.parametrize(
    "weights, given, num_train, found",
    [(True, None, 9_999, 0.1), (True, None, 10_000, 1.0), (False, None, 600, 1.0), (True, "1", 600, 1.0)],
)
def test_ratio_of_the_teachers_rate_that_is_left_open_fits_its_weights_and_the_images(weights, given, num_train, found):
    options = ["--teacher=resnet20", "--teacher_pixel_mean=0", "--teacher_pixel_std=1"]
    options += ["--teacher_weights=w.h5"] * weights + [f"--teacher_lr_ratio={given}"] * bool(given)
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x", *options])
        experiment = flags.experiment_from_flags().on_images(num_train)
    assert experiment.training.teacher_lr_ratio == found
    notes = experiment.notes_on(num_train)
    assert any("few for a teacher" in note and "0.1 times the student's" in note for note in notes) == (found == 0.1)


@pytest.mark.parametrize("phases, noted", [("self_studying", True), ("self_studying,tutoring", False), ("", False)])
def test_a_teacher_that_no_phase_uses_is_noted(phases, noted):
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x", "--teacher=resnet20", f"--phases={phases}"])
        notes = flags.experiment_from_flags().notes_on(60_000)
    assert any("no phase of self_studying uses the teacher; add co_studying or tutoring" in n for n in notes) == noted


def test_teacher_without_weights_is_trained_at_the_rate_of_the_paper_all_the_same():
    student = ["--student_weights=w.h5", "--student_weights_mean=0", "--student_weights_std=1"]
    phases = ["--teacher=resnet20", "--phases=full_precision,tutoring"]
    with saved_flags():
        flags.FLAGS(["train", "--run_dir=runs/x", *student, *phases])
        training = flags.experiment_from_flags().on_images(600).training
    assert [phase.learning_rate for phase in training.phases] == [0.01, 0.001]
