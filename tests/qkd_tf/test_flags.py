import dataclasses
import math

import pytest
from absl import flags as absl_flags
from hypothesis import given, settings
from hypothesis import strategies as st

from qkd_tf import flags
from qkd_tf.experiment import PHASES, ExperimentError, PhaseSpec, PixelNormalization
from tests.saved_flags import saved_flags

SMALL = ("--run_dir=runs/x", "--dataset=digits", "--student=convnet_small", "--teacher=convnet_large")


@pytest.fixture
def parse():
    """parse(*arguments): the experiment of a command line; other tests see none of it."""
    with saved_flags():

        def parse(*arguments):
            flags.FLAGS.unparse_flags()
            flags.FLAGS(["train", *arguments])
            return flags.experiment_from_flags()

        yield parse


def complaint(parse, *arguments):
    with pytest.raises(ExperimentError) as caught:
        parse(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_paper(parse):
    experiment = parse("--run_dir=runs/x", "--teacher=resnet56")
    training = experiment.training
    assert [(p.name, p.epochs) for p in training.phases] == [
        ("self_studying", 30),
        ("co_studying", 100),
        ("tutoring", 70),
    ]
    assert {p.learning_rate for p in training.phases} == {0.01}
    assert (training.temperature, training.distillation_weight, training.momentum) == (2.0, 1.0, 0.9)
    assert (training.weight_decay, training.optimizer) == (1e-4, "sgd")
    assert (experiment.quantization.first_layer_bits, experiment.quantization.last_layer_bits) == (8, 8)
    assert (experiment.data.batch_size, experiment.data.padding(32, 32), experiment.data.mirrors) == (128, 4, True)


def test_every_flag_reaches_the_experiment(parse):
    """A flag that is defined and read by nobody would be a promise broken in silence."""
    changed = {
        "dataset": "mnist", "test_fraction": 0.25, "data_dir": "d", "test_split": "validation", "image_size": 24,
        "resize": "squash", "image_channels": 1, "input_scale": 0.5, "input_zero_point": 3,
        "validation_fraction": 0.3, "crop_padding": 2, "student_augmentation": False,
        "batch_size": 7, "student": "resnet8", "teacher": "resnet20", "student_weights": "s.h5",
        "teacher_weights": "t.h5", "student_pixel_mean": 3, "student_pixel_std": 5, "student_weights_mean": 6,
        "teacher_pixel_mean": 8, "teacher_pixel_std": 9, "weight_bits": 3, "activation_bits": 5,
        "first_layer_bits": 6, "last_layer_bits": 7, "residual_bits": 5, "interval_init": "lsq",
        "interval_gradient_scale": "none", "calibration_batches": 3, "interval_gradient_share": 0.5,
        "phases": "tutoring", "epochs": 2, "learning_rates": 0.5, "optimizer": "adam", "keep_epoch": "last",
        "interval_optimizer": "adam",
        "phase_bits": 4,
        "momentum": 0.5, "one_cosine": False, "weight_decay": 0.2, "weight_interval_lr_ratio": 0.3,
        "activation_interval_lr_ratio": 0.4, "interval_max_change": 0.25, "teacher_lr_ratio": 0.6,
        "temperature": 4.0, "distillation_weight": 0.7, "distillation_weight_end": 0.1,
        "label_weight": 0.5, "feature_distillation_weight": 0.3, "run_dir": "runs/y", "seed": 5,
        "gradient_accumulation_steps": 2,
        "mixed_precision": "float16", "steps_per_execution": 4, "ewgs_scale": 1e-3, "batch_norm_batches": 5,
        "batch_norm_statistics": "shift",
        "dampening": 0.1, "freeze_threshold_start": 0.2, "freeze_threshold_end": 0.02, "weights_ema": 0.9,
        "max_steps": 3, "max_eval_images": 100, "bits_rule": "a.*=w4", "equalize_channels": "on",
        "normalize_weights": "layer",
        "strategy": "mirrored",
        "target": "ethos_u", "max_flash_bytes": 1000, "max_ram_bytes": 1000, "weight_storage": "int8", "bits": "auto",
        "checkpoint_every_steps": 9, "augment": "nets:augment", "label_smoothing": 0.1, "class_weights": "balanced",
    }  # fmt: skip
    extra = {
        "student_weights": ["--student_weights_mean=1", "--student_weights_std=2"],
        "student_weights_mean": ["--student_weights=w.h5", "--student_weights_std=2"],
        "test_fraction": ["--dataset=folder:x"],
        "bits": ["--max_flash_bytes=1000"],
    }
    base = [
        "--run_dir=runs/x",
        "--phases=self_studying",
        "--epochs=1",
        "--teacher=resnet56",
        "--teacher_pixel_mean=1",
        "--nomask_weight_gradient",
    ]
    assert set(flags.FLAGS) == {
        *changed, "bits", "student_weights_std", "horizontal_flip", "signals", "narrow_range", "mask_weight_gradient",
        "jit_compile", "skip_broken_images", "deterministic", "trust_model_code", "allow_weak_teacher",
    }  # fmt: skip
    plain = parse(*base)
    for name, value in changed.items():
        assert parse(*base, f"--{name}={value}", *extra.get(name, [])) != plain, name
    for name in (
        "nohorizontal_flip",
        "signals",
        "nosignals",
        "nonarrow_range",
        "mask_weight_gradient",
        "jit_compile",
        "skip_broken_images",
        "deterministic",
        "nodeterministic",
        "trust_model_code",
        "allow_weak_teacher",
    ):
        assert parse(*base, f"--{name}") != plain, name
    with_mean = [*base, "--student_weights=w.h5", "--student_weights_mean=1"]
    assert parse(*with_mean, "--student_weights_std=2") != parse(*with_mean, "--student_weights_std=3")


@pytest.mark.parametrize("bits, widths", [("4", (4, 4)), ("w2a8", (2, 8))])
def test_bits_sets_both_widths_and_the_flag_file_has_these(parse, bits, widths):
    quantization = parse(*SMALL, f"--bits={bits}").quantization
    assert (quantization.weight_bits, quantization.activation_bits) == widths
    lines = flags.flag_lines()
    assert {f"--weight_bits={widths[0]}", f"--activation_bits={widths[1]}"} <= set(lines)
    assert not any(line.startswith("--bits=") for line in lines)


def test_lists_make_one_phase_each(parse):
    experiment = parse(*SMALL, "--phases=tutoring,self_studying", "--epochs=3,4", "--learning_rates=0.1,0.2")
    assert experiment.training.phases == (PhaseSpec("tutoring", 3, 0.1), PhaseSpec("self_studying", 4, 0.2))


def test_one_learning_rate_serves_all_phases(parse):
    experiment = parse(*SMALL, "--learning_rates=0.3")
    assert [p.learning_rate for p in experiment.training.phases] == [0.3] * 3


@pytest.mark.parametrize(
    "arguments, counts",
    [
        (["--phases=self_studying", "--epochs=30,100,70"], ("1", "3", "1")),
        (["--epochs=1,2"], ("3", "2", "1")),
        (["--learning_rates=0.1,0.2"], ("3", "3", "2")),
        (["--learning_rates="], ("3", "3", "0")),
    ],
)
def test_lists_of_different_lengths_are_refused_with_their_lengths(parse, arguments, counts):
    phases, epochs, rates = counts
    message = complaint(parse, *SMALL, *arguments)
    entries = "entry" if phases == "1" else "entries"
    assert f"--phases has {phases} {entries}, --epochs {epochs} and --learning_rates {rates};" in message


AUTO = ("--bits=auto", "--max_flash_bytes=9000")


def test_widths_that_are_to_be_found_are_at_most_8_bits_and_the_flag_file_finds_them_again(parse):
    experiment = parse(*SMALL, *AUTO, "--epochs=1", "--phases=tutoring", "--bits_rule=.*=a4")
    spec = experiment.quantization
    assert (spec.finds_bits, spec.is_open, spec.weight_bits, spec.activation_bits) == (True, True, 8, 8)
    lines = flags.flag_lines()
    assert "--bits=auto" in lines
    assert not any(line.startswith(("--weight_bits=", "--activation_bits=")) for line in lines)
    flags.FLAGS.unparse_flags()
    assert parse(*lines) == experiment


def test_widths_cannot_be_found_without_a_budget_nor_beside_those_that_are_given(parse):
    assert "--bits=auto needs a budget; give --max_flash_bytes=N" in complaint(parse, *SMALL, "--bits=auto")
    told = complaint(parse, *SMALL, *AUTO, "--weight_bits=4")
    assert told == "--bits=auto and --weight_bits=4 both set bit widths; leave one of them out"


@pytest.mark.parametrize(
    "target, storage, holds", [("ethos_u", "int4", False), ("ethos_u", "int8", True), ("phone", "int4_all", True)]
)
def test_storage_is_one_that_the_target_has(parse, target, storage, holds):
    arguments = (*SMALL, f"--target={target}", f"--weight_storage={storage}")
    if holds:
        assert parse(*arguments).target.storage == storage
    else:
        assert f"--weight_storage={storage} and --target={target} cannot be combined" in complaint(parse, *arguments)


@pytest.mark.parametrize(
    "phases, given, bits",
    [
        ("self_studying,self_studying,self_studying", "8,w4a8,w2a3", [(8, 8), (4, 8), (2, 3)]),
        ("full_precision,co_studying,tutoring", "32,w8a4,w2a3", [None, (8, 4), (2, 3)]),
        ("self_studying,full_precision", "w2a3,32", [(2, 3), None]),
        ("self_studying", "w2a3", [(2, 3)]),
        ("self_studying,tutoring", "w2a3, w2a3", [(2, 3), (2, 3)]),
        ("self_studying,tutoring", None, [None, None]),
        ("self_studying,tutoring", "", [None, None]),
    ],
)
def test_each_phase_may_have_widths_of_its_own(parse, phases, given, bits):
    more = [] if given is None else [f"--phase_bits={given}"]
    experiment = parse(*SMALL, "--weight_bits=2", "--activation_bits=3", f"--phases={phases}", *more)
    assert [phase.bits for phase in experiment.training.phases] == bits
    assert any("phase_bits" in line for line in flags.flag_lines()) == (given is not None)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--phase_bits=8,4"], "--phase_bits has 2 entries and --phases 3; give one per phase"),
        (["--phase_bits=4"], "--phase_bits has 1 entry and --phases 3; give one per phase"),
        (["--phase_bits=4", "--phases="], "--phase_bits has 1 entry and --phases 0; give one per phase"),
        (
            ["--phase_bits=8,4,2"],
            "--phase_bits ends in w2a2, but the file must have w4a4 (--weight_bits, --activation",
        ),
        (["--phase_bits=8,2,w4a8"], "--phase_bits ends in w4a8, but the file must have w4a4"),
        (
            ["--phase_bits=8,32", "--phases=self_studying,full_precision"],
            "--phase_bits ends in w8a8, but the file must have w4a4",
        ),
        (["--phase_bits=9,4,4"], "--phase_bits=9 is out of range; bit widths of 2 to 8"),
        (["--phase_bits=w1a4,4,4"], "--phase_bits=w1a4 is out of range"),
        (["--phase_bits=32,4,4"], "--phase_bits=32 is out of range"),
        (["--phase_bits=a4,4,4"], "--phase_bits=a4 is not understood; write w4a8, or 4 for"),
        (["--phase_bits=" + "9" * 5000 + ",4,4"], " is not understood; write w4a8"),
        (
            ["--phase_bits=8,4", "--phases=full_precision,self_studying"],
            "--phase_bits: phase full_precision trains in float; its entry is 32",
        ),
        (["--phase_bits=half,4", "--phases=full_precision,self_studying"], "--phase_bits=half is not understood"),
    ],
)
def test_widths_of_phases_that_do_not_fit_are_refused_in_a_line(parse, arguments, told):
    assert told in complaint(parse, *SMALL, *arguments)


def test_no_phases_mean_calibration_alone(parse):
    assert parse(*SMALL, "--phases=").training.phases == ()
    assert flags.notes() == []


@pytest.mark.parametrize(
    "arguments, lengths, note",
    [
        (["--teacher="], {"self_studying": 30}, "--phases and --epochs without a teacher"),
        (["--teacher=", "--epochs=7"], {"self_studying": 7}, "--phases without a teacher"),
        ([], {"self_studying": 30, "co_studying": 100, "tutoring": 70}, "--phases and --epochs"),
        (["--epochs=2"], {"self_studying": 2, "co_studying": 2, "tutoring": 2}, "--phases"),
        (["--phases=full_precision,tutoring"], {"full_precision": 160, "tutoring": 70}, "--epochs"),
        (["--phases=full_precision,tutoring", "--epochs=3"], {"full_precision": 3, "tutoring": 3}, ""),
    ],
)
def test_phases_and_epochs_that_are_left_open_are_settled_and_told(parse, arguments, lengths, note):
    experiment = parse(*SMALL, *arguments)
    assert {phase.name: phase.epochs for phase in experiment.training.phases} == lengths
    is_told = not any(argument.startswith("--epochs") for argument in arguments)  # else the user knows
    told = ", ".join(f"{name} for {epochs} epochs" if is_told else name for name, epochs in lengths.items())
    assert flags.notes() == ([f"note: the run trains {told}, the default of {note}"] if note else [])
    lines = flags.flag_lines()  # another version may have other defaults
    assert {f"--phases={','.join(lengths)}", f"--epochs={','.join(map(str, lengths.values()))}"} <= set(lines)


@pytest.mark.parametrize(
    "argument, part",
    [
        ("--epochs=1,2,x", "--epochs=x: whole numbers"),
        ("--epochs=1,2,1.5", "--epochs=1.5: whole numbers"),
        ("--learning_rates=fast", "--learning_rates=fast: numbers"),
        ("--student_pixel_mean=grey", "--student_pixel_mean=grey: numbers"),
        ("--teacher_pixel_std=a,b", "--teacher_pixel_std=a,b: numbers"),
        ("--epochs=1,0,1", "phase co_studying has 0 epochs"),
        ("--phases=self_studying,co_studying,tutor", "'tutor'"),
        ("--weight_bits=1", "--weight_bits=1 "),
        ("--bits=9", "--bits=9 is out of range"),
        ("--bits=four", "--bits=four is not understood; write w4a8"),
        ("--activation_bits=16", "--activation_bits=16 "),
        ("--temperature=0", "--temperature=0.0 "),
        ("--validation_fraction=1", "--validation_fraction=1.0 "),
        ("--batch_size=0", "--batch_size=0 "),
        ("--student_pixel_mean=127.5", "--student_pixel_mean=127.5 "),
        ("--student_pixel_std=0", "must be positive"),
        ("--student_weights_mean=1", "same number"),
    ],
)
def test_a_users_mistake_is_one_line(parse, argument, part):
    assert part in complaint(parse, *SMALL, argument)


def test_bits_and_one_of_the_flags_that_it_stands_for_are_refused(parse):
    told = complaint(parse, *SMALL, "--bits=4", "--activation_bits=8")
    assert told == "--bits=4 and --activation_bits=8 both set bit widths; leave one of them out"


def test_run_dir_must_be_given(parse):
    assert "--run_dir" in complaint(parse, "--dataset=digits")


@pytest.mark.parametrize(
    "given, missing",
    [("--student_weights=w.h5", "--student_weights_mean"), ("--teacher_weights=w.h5", "--teacher_pixel_mean")],
)
def test_normalization_of_weights_must_be_told(parse, given, missing):
    assert missing in complaint(parse, *SMALL, given)


@pytest.mark.parametrize("name", ["mine:build", "saved.keras", "folder/saved"])
def test_normalization_of_weights_is_not_asked_for_of_models_that_may_do_it_themselves(parse, name):
    """At 6352718 a student that begins with Rescaling had to be given a mean and a deviation that did nothing."""
    experiment = parse(
        *SMALL, f"--student={name}", f"--teacher={name}", "--student_weights=w.h5", "--teacher_weights=w.h5"
    )
    assert experiment.student.weights_normalization is experiment.teacher.weights_normalization is None


@pytest.mark.parametrize(
    "given, normalization, told",
    [
        ((), ((128.0,), (64.0,)), False),
        (("--teacher_pixel_mean=0", "--teacher_pixel_std=1"), ((0.0,), (1.0,)), True),
        (("--teacher_pixel_mean=1,2,3", "--teacher_pixel_std=4,5,6"), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), True),
        (("--teacher_pixel_mean=0",), ((0.0,), (64.0,)), True),
        (("--teacher_pixel_std=255",), ((128.0,), (255.0,)), True),
    ],
)
def test_pixels_of_the_teacher_are_told_or_its_own(parse, given, normalization, told):
    teacher = parse(*SMALL, *given).teacher
    assert teacher.normalization == PixelNormalization(*normalization)
    assert teacher.weights_normalization == (teacher.normalization if told else None)


@pytest.fixture
def look(parse):
    """look(*arguments): the experiment that a pre-flight reads off a command line."""

    def look(*arguments):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["preflight", *arguments])
        return flags.experiment_from_flags(trains=False)

    return look


def test_look_needs_neither_folder_nor_teacher(look):
    experiment = look("--dataset=digits", "--student=convnet_small")
    assert experiment.run_dir == "none" and experiment.teacher is None
    assert experiment.training.phase_names == ["self_studying"]
    assert look("--dataset=digits", "--phases=full_precision,tutoring", "--epochs=1,1").training.phases == ()
    falling = look("--dataset=digits", "--phases=self_studying,tutoring", "--phase_bits=8,4")
    assert falling.training.phase_names == ["self_studying"]


def test_look_keeps_what_is_given_and_refuses_what_training_would(look):
    experiment = look(*SMALL)
    assert experiment.run_dir == "runs/x" and len(experiment.training.phases) == 3
    for wrong in ("--run_dir=", "--epochs=1,2", "--weight_bits=1", "--phase_bits=8,4,2"):
        with pytest.raises(ExperimentError, match=wrong.partition("=")[0]):
            look(*SMALL, wrong)


def test_normalization_of_weights_is_not_the_students_own(parse):
    pixels = ("--student_weights=w.h5", "--student_pixel_mean=0", "--student_pixel_std=255")
    student = parse(*SMALL, *pixels, "--student_weights_mean=1,2,3", "--student_weights_std=4,5,6").student
    assert student.normalization == PixelNormalization((0.0,), (255.0,))
    assert student.weights_normalization == PixelNormalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), ((128.0,), (64.0,))),
        (("--student_weights_mean=0", "--student_weights_std=255"), ((0.0,), (255.0,))),
        (("--student_weights_mean=127.5", "--student_weights_std=127.5"), ((128.0,), (64.0,))),
        (("--student_weights_mean=1,2,3", "--student_weights_std=4,5,6"), ((128.0,), (64.0,))),
        (("--student_weights_mean=0", "--student_weights_std=255", "--student_pixel_mean=5"), ((5.0,), (64.0,))),
        (("--student_pixel_std=32",), ((128.0,), (32.0,))),
    ],
)
def test_students_pixels_are_those_of_its_weights_where_an_input_can_have_them(parse, given, expected):
    assert parse(*SMALL, *given).student.normalization == PixelNormalization(*expected)


@pytest.mark.parametrize("argument", ["--student_weights_std=4", "--student_weights_std=4,5,6"])
def test_deviation_of_the_weights_without_their_mean_is_not_ignored(parse, argument):
    complaint(parse, *SMALL, "--student_weights=w.h5", argument)


def test_no_teacher_no_spec(parse):
    assert parse("--run_dir=r", "--phases=self_studying", "--epochs=1").teacher is None


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--image_size=96x64", "--signals", "--input_scale=0.25", "--input_zero_point=0", "--crop_padding=0"],
        ["--nohorizontal_flip", "--nomask_weight_gradient", "--weight_decay=0.00001", "--student_pixel_mean=0"],
        ["--student_weights_mean=1,2,3", "--student_weights_std=4.5,5,6", "--student_weights=a b.h5"],
        ["--phases=tutoring,co_studying", "--epochs=1,2", "--learning_rates=0.1,0.25", "--data_dir=/with space/x"],
        ["--phases=full_precision,tutoring,tutoring", "--phase_bits=32,w8a4,4"],
    ],
)
def test_flag_lines_are_a_flag_file_of_the_same_experiment(parse, tmp_path, arguments):
    experiment = parse(*SMALL, *arguments)
    file = tmp_path / "flags.txt"
    file.write_text("\n".join(flags.flag_lines()) + "\n")
    assert parse(f"--flagfile={file}") == experiment


def test_flag_lines_hold_only_the_packages_flags(parse):
    parse(*SMALL)
    names = {line.split("=")[0].removeprefix("--").removeprefix("no") for line in flags.flag_lines()}
    assert "run_dir" in names and "narrow_range" in names
    assert not names & {"verbosity", "logtostderr", "flagfile", "helpfull", "tfds_dir"}


TEXTS = st.one_of(
    st.sampled_from(["", " ", "x", "none", "-", "1;2", "é", "a\nb", "../..", "a/b", ":", "..:x", "0x10", "1e3", "²"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
INTEGERS = st.one_of(st.integers(-2, 12), st.sampled_from([-(10**30), 2**31, 2**32, 2**63, 10**30]), st.integers())
FLOATS = st.one_of(st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, 1e-300, 1e300, float("nan"), float("inf")]), st.floats())
BITS = st.tuples(st.sampled_from(["a.*", "(", "*", "[", "a{99999999999999999999}", "(?P<x>", "\\"]), st.sampled_from(
    ["w4", "a4", "w4a8", "w1", "w9", "w99999", "w²", "", "x", "w" + "9" * 5000]))  # fmt: skip
PLAIN = {"phases": "self_studying", "epochs": "1", "teacher": "resnet20", "student": "resnet8", "run_dir": "runs/x"}


def values_of(flag) -> st.SearchStrategy:
    """Good and bad values of a flag, as a user types them."""
    known = getattr(flag.parser, "enum_values", None) or getattr(flag.parser, "_enum", None) or ()
    own = [str(value) for value in known]
    own += {"phases": [",".join(PHASES), *PHASES], "dataset": ["digits", "folder:x", "mnist"]}.get(flag.name, [])
    own += [PLAIN[flag.name]] if flag.name in PLAIN else []
    numbers = st.one_of(INTEGERS, FLOATS).map(str)
    lists = st.lists(st.one_of(numbers, st.sampled_from(["1", "0.5", "self_studying", "", "x"])), max_size=4)
    rules = BITS.map("=".join)
    kinds = [numbers, numbers, lists.map(",".join), rules if flag.name == "bits_rule" else TEXTS, TEXTS]
    return st.one_of(*kinds, *([st.sampled_from(own)] * 3 if own else []))


OWN_FLAGS = [flags.FLAGS[name] for name in sorted(flags.FLAGS)]
COMMAND_LINES = st.lists(
    st.sampled_from(OWN_FLAGS).flatmap(lambda flag: values_of(flag).map(lambda value: (flag.name, value))), max_size=4
)


def floats_of(value) -> list[float]:
    """Every number with a point that an experiment holds."""
    if dataclasses.is_dataclass(value):
        return floats_of(list(vars(value).values()))
    if isinstance(value, list | tuple):
        return [number for item in value for number in floats_of(item)]
    return [value] if isinstance(value, float) else []


def test_whatever_is_typed_gives_an_experiment_or_a_line_that_names_a_flag(parse):
    ends = {"experiment": 0, "refused": 0}

    @settings(max_examples=510)
    @given(COMMAND_LINES)
    def holds(drawn):
        given_flags = {**PLAIN, **dict(drawn)}
        try:
            experiment = parse(*(f"--{name}={value}" for name, value in given_flags.items()))
        except (ExperimentError, absl_flags.Error) as error:
            ends["refused"] += 1
            message = str(error)
            assert any(f"--{name}" in message for name in given_flags), message
            assert isinstance(error, absl_flags.Error) or "\n" not in message
        else:
            ends["experiment"] += 1
            assert isinstance(experiment.notes, list) and flags.flag_lines()
            assert all(map(math.isfinite, floats_of(experiment))), experiment

    holds()
    assert min(ends.values()) >= 50, ends


@pytest.mark.parametrize(
    "argument",
    [
        *(
            f"--{name}={value}"
            for value in ("nan", "inf", "-inf", "-1")
            for name in (
                "weight_decay", "distillation_weight", "distillation_weight_end", "label_weight",
                "feature_distillation_weight", "teacher_lr_ratio", "weight_interval_lr_ratio", "momentum",
                "activation_interval_lr_ratio", "interval_max_change", "temperature", "dampening", "ewgs_scale",
                "freeze_threshold_start", "freeze_threshold_end", "validation_fraction", "interval_gradient_share",
                "weights_ema", "learning_rates",
            )  # fmt: skip
        ),
        *(f"--{flag}=nan" for flag in ("student_pixel_mean", "student_pixel_std", "teacher_pixel_mean")),
        *(f"--{flag}=inf" for flag in ("student_pixel_mean", "student_pixel_std", "teacher_pixel_std")),
        "--seed=-1", "--seed=4294967296", "--batch_size=1000000000000", "--image_size=1000000000",
        "--crop_padding=1000000000", "--calibration_batches=10000000000000000000000", "--epochs=99999999999,1,1",
        "--max_steps=10000000000000000000000", "--steps_per_execution=10000000000000000000000", "--run_dir=",
        f"--run_dir=runs/{'x' * 256}", "--bits_rule=a{99999999999999999999}=w4", "--bits_rule=a=w" + "9" * 5000,
    ],
)  # fmt: skip
def test_numbers_without_meaning_are_refused_by_the_flags_name(parse, argument):
    assert argument.partition("=")[0] in complaint(parse, *SMALL, argument)


def test_repeated_rules_reach_the_experiment_in_their_order_and_the_flag_file(parse):
    experiment = parse(*SMALL, "--bits_rule=a.*=w4a8", "--bits_rule=b=w2")
    assert experiment.quantization.bits_rule == ("a.*=w4a8", "b=w2")
    lines = "\n".join(flags.flag_lines()).splitlines()
    assert [line for line in lines if line.startswith("--bits_rule")] == ["--bits_rule=a.*=w4a8", "--bits_rule=b=w2"]


@pytest.mark.parametrize(
    "name, begun, given, found",
    [
        ("teacher_lr_ratio", "1.0", [], 1.0),
        ("teacher_lr_ratio", "0.5", [], None),
        ("teacher_lr_ratio", "1.0", ["0.2"], 0.2),
        ("batch_size", "128", [], 128),
        ("batch_size", "128", ["32"], 32),
    ],
)
def test_run_of_an_earlier_version_goes_on_with_the_default_that_it_began_with(tmp_path, name, begun, given, found):
    (tmp_path / "flags.txt").write_text(f"--seed=0\n--{name}={begun}\n")
    with saved_flags():
        flags.FLAGS(["train", f"--run_dir={tmp_path}", *(f"--{name}={number}" for number in given)])
        flags.adopt_begun()
        assert flags.FLAGS[name].value == found
