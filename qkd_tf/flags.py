"""The command line: the only flags of the package, and the Experiment they make."""

import copy
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping

from absl import flags

from qkd_tf import experiment as ex
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import meant
from qkd_tf.contract.pictures import Size
from qkd_tf.contract.resuming import FLAGS_FILE

FLAGS = CommandFlags()


class _SizeParser(flags.ArgumentParser):
    """Parser of --image_size, which also reads what it writes to a flag file."""

    syntactic_help = "pixels of a side, or height x width"

    def parse(self, argument: object) -> Size:
        return ex.image_size_of(argument)

    def flag_type(self) -> str:
        return "size"


class _SizeSerializer(flags.ArgumentSerializer):
    def serialize(self, value: Size) -> str:
        return str(value) if isinstance(value, int) else "{}x{}".format(*value)


def _define_size(name: str, default: Size, help: str, flag_values: flags.FlagValues) -> flags.FlagHolder:
    return flags.DEFINE(_SizeParser(), name, default, help, flag_values, _SizeSerializer())


def _define(option: ex.Option) -> None:
    """Defines a field's flag, by the field's type."""
    if option.choices:
        FLAGS.DEFINE_enum(option.name, option.default, option.choices, option.help)
    else:
        DEFINES[option.kind](option.name, option.default, option.help)


DEFINES = {
    str: FLAGS.DEFINE_string,
    int: FLAGS.DEFINE_integer,
    float: FLAGS.DEFINE_float,
    bool: FLAGS.DEFINE_bool,
    bool | None: FLAGS.DEFINE_bool,
    int | None: FLAGS.DEFINE_integer,
    float | None: FLAGS.DEFINE_float,
    Size: functools.partial(FLAGS.define, _define_size),
    tuple[str, ...]: FLAGS.DEFINE_multi_string,
}
# Section of the flags' table -> the spec most of whose fields stand there. A field may name another section.
SPECS = {
    "Data": ex.DataSpec,
    "Networks": None,
    "Quantization": ex.QuantizationSpec,
    "Training": ex.TrainingSpec,
    "Low-bit networks": None,
    "Accelerators": None,
    "Target": ex.TargetSpec,
    "Run": ex.Experiment,
}
OPTIONS = [option for section, spec in SPECS.items() if spec for _, option in ex.options(spec, section)]


def _define_networks() -> None:
    """Defines the flags of networks and their pixels."""
    FLAGS.DEFINE_string(
        "student",
        "resnet20",
        "Network to quantize: a named network, package.module:builder, or a model saved as .keras, .h5 or SavedModel.",
    )
    FLAGS.DEFINE_string("teacher", "", "Network to learn from, given like --student; empty: none.")
    FLAGS.DEFINE_string(
        "student_weights", "", "File of pretrained weights for the student: .h5, .keras, .weights.h5 or .npz."
    )
    FLAGS.DEFINE_string(
        "teacher_weights", "", "File of pretrained weights for the teacher: .h5, .keras, .weights.h5 or .npz."
    )
    FLAGS.DEFINE_bool(
        "trust_model_code",
        False,
        "Run the code inside a saved model (Lambda layers, classes that are not part of tf_keras); default: refuse the "
        "model.",
    )
    FLAGS.DEFINE_list(
        "student_pixel_mean",
        [],
        "Pixel value, a whole number in 0..254, that the student reads as 0.0; empty: --student_weights_mean if it is "
        "such a number, otherwise 128.",
    )
    FLAGS.DEFINE_list(
        "student_pixel_std",
        [],
        "Difference between pixel values that the student reads as 1.0, one number; empty: --student_weights_std if "
        "--student_weights_mean is used, otherwise 64.",
    )
    FLAGS.DEFINE_list("student_weights_mean", [], "Mean, in pixels 0..255, that --student_weights were trained with.")
    FLAGS.DEFINE_list(
        "student_weights_std", [], "Standard deviation, in pixels, that --student_weights were trained with."
    )
    FLAGS.DEFINE_list(
        "teacher_pixel_mean",
        [],
        "Pixel value that the teacher reads as 0.0, one number or one per channel; empty: the teacher's own "
        "normalization, or 128 if it has none.",
    )
    FLAGS.DEFINE_list(
        "teacher_pixel_std",
        [],
        "Difference between pixel values that the teacher reads as 1.0; empty: the teacher's own normalization, or 64 "
        "if it has none.",
    )


def _define_bits() -> None:
    """Defines --bits, one flag for two."""
    FLAGS.DEFINE_string(
        "bits",
        None,
        "Sets --weight_bits and --activation_bits: 4 for both, or w4a8 for 4-bit weights and 8-bit activations. auto "
        "finds, for each kernel, the bit width up to 8 that loses the least accuracy within --max_flash_bytes, and "
        "gives activations 8 bits.",
    )


def _define_phases() -> None:
    """Defines the flags with one entry per phase."""
    FLAGS.DEFINE_list(
        "phases",
        None,
        "Phases to train, in order, any of "
        + ", ".join(ex.PHASES)
        + "; --phases= calibrates without training; default: "
        "self_studying, then with a teacher co_studying and tutoring.",
    )
    FLAGS.DEFINE_list(
        "epochs",
        None,
        "Epochs of each phase, or one number for all phases; default: "
        + ", ".join(f"{name} {number}" for name, number in ex.EPOCHS.items())
        + " (QKD on CIFAR: 30, 100, 70).",
    )
    FLAGS.DEFINE_list(
        "learning_rates",
        None,
        "First learning rate of each phase, or one for all phases; it falls along a cosine; default: "
        f"{ex.LEARNING_RATE:g} (QKD), or {ex.RATE_OF_FEW:g} for a student with pretrained weights on fewer than "
        f"{ex.FEW_PICTURES:,} training images.",
    )
    FLAGS.DEFINE_list(
        "phase_bits",
        None,
        f"Bit widths of each phase: 4, or w4a8 for weights and activations, or {ex.FLOAT_BITS} for full_precision. The "
        "last quantized phase must have --weight_bits and --activation_bits. First and last layer, residual tensors "
        "and --bits_rule keep their bit widths; default: --weight_bits and --activation_bits in all phases.",
    )
    FLAGS.DEFINE_list(
        "class_weights",
        [],
        "Factor of each class in the cross-entropy: one number per class, CLASS:NUMBER for some (CLASS is a name, or a "
        "number from 0), or balanced, which gives all classes equal total weight; default: 1 for each.",
    )


OWN = {
    "Networks": _define_networks,
    "Quantization": _define_bits,
    "Training": _define_phases,
}  # flags that do not correspond to one field
for _section in SPECS:
    FLAGS.begin(_section)
    OWN.get(_section, lambda: None)()
    for _option in sorted(OPTIONS, key=lambda option: option.is_guest):
        if _option.section == _section:
            _define(_option)
FLAGS.show_first(
    (
        *("dataset", "data_dir", "image_size", "batch_size", "max_steps", "max_eval_images"),
        *("student", "student_weights", "teacher", "teacher_weights"),
        *("bits", "bits_rule"),
        *("phases", "epochs", "learning_rates"),
        *("target", "max_flash_bytes", "run_dir", "seed"),
    )
)


WIDTHS = ("weight_bits", "activation_bits")  # flags that --bits sets
INSTEAD = {"bits": WIDTHS, **dict.fromkeys(WIDTHS, ("bits",))}  # flag -> those that it takes the place of
# What earlier versions wrote to flags.txt as defaults of flags that may be left open now.
EARLIER_DEFAULTS = {"teacher_lr_ratio": "1.0", "batch_size": "128"}


def experiment_from_flags(values: flags.FlagValues = FLAGS, trains: bool = True) -> ex.Experiment:
    """The experiment that parsed flags, those of the command line or of `flags_of`, describe.

    Args:
      trains: False to look at the networks only, which needs no folder, and no teacher for phases that have one.

    Raises:
      ExperimentError: a value out of range, or flags that cannot be combined.
    """
    run_dir = values.run_dir if trains or values.run_dir is not None else "none"
    ex.require(run_dir is not None, "--run_dir is missing; give a folder for the run, such as runs/my_run")
    phases = _phases(values)
    weights_pixels = None
    if values.student_weights_mean or values.student_weights_std:
        weights_pixels = _normalization(values, "student_weights")
    student_pixels = weights_pixels
    if values.student_pixel_mean or values.student_pixel_std or not (weights_pixels and weights_pixels.fits_input):
        student_pixels = _normalization(values, "student_pixel", ("128", "64"))
    ex.require(values.teacher or not values.teacher_weights, "--teacher_weights without --teacher; name the teacher")
    student = ex.NetworkSpec(
        values.student,
        student_pixels,
        values.student_weights,
        weights_pixels,
        values.trust_model_code,
        is_told=bool(values.student_pixel_mean or values.student_pixel_std),
    )
    teacher = None
    if values.teacher:
        told = values.teacher_pixel_mean or values.teacher_pixel_std
        teacher_pixels = _normalization(values, "teacher_pixel", ("128", "64"))
        teacher = ex.NetworkSpec(
            values.teacher,
            teacher_pixels,
            values.teacher_weights,
            teacher_pixels if told else None,
            values.trust_model_code,
        )
    elif not trains:
        alone = [phase for phase in phases if phase.name not in ex.TEACHER_PHASES]
        if len(alone) < len(phases):  # what is left need not end in the experiment's own widths
            phases = tuple(dataclasses.replace(phase, bits=None) for phase in alone)
        phases = phases if any(phase.name != "full_precision" for phase in phases) else ()
    for network, flag in ((student, "student_weights_mean"), (teacher, "teacher_pixel_mean")):
        ex.require(
            network is None or network.is_own or not network.weights or network.weights_normalization is not None,
            f"--{flag.partition('_')[0]}_weights without --{flag} and --{flag.replace('mean', 'std')}; give the pixel "
            "normalization that they were trained with, such as 0 and 1 for raw pixels",
        )
    return ex.Experiment(
        run_dir=run_dir,
        seed=values.seed,
        data=_spec(values, ex.DataSpec, seed=values.seed, batch_is_default=values.batch_size is None),
        student=student,
        teacher=teacher,
        quantization=_spec(
            values,
            ex.QuantizationSpec,
            bits_rule=tuple(values.bits_rule),
            finds_bits=_finds_bits(values),
            told_by_bits=values["bits"].value is not None,
            **_widths(values),
        ),
        training=_spec(
            values,
            ex.TrainingSpec,
            phases=phases,
            class_weights=tuple(values.class_weights),
            teacher_ratio_is_default=values.teacher_lr_ratio is None,
        ),
        target=_spec(values, ex.TargetSpec),
    )


def _finds_bits(values: flags.FlagValues) -> bool:
    return values["bits"].value == ex.AUTO_BITS


def _widths(values: flags.FlagValues) -> dict[str, int]:
    """What --bits says about --weight_bits and --activation_bits; empty if it is not given.

    An ablation's --bits is a list; it sets both flags cell by cell.
    """
    text = values["bits"].value
    if text is None or isinstance(text, list):
        return {}
    told = " and ".join(f"--{name}={values[name].value}" for name in WIDTHS if values[name].present)
    ex.require(not told, f"--bits={text} and {told} both set bit widths; leave one of them out")
    if _finds_bits(values):
        return dict.fromkeys(WIDTHS, ex.WIDEST_BITS)
    return dict(zip(WIDTHS, ex.bit_widths(text, "--bits"), strict=True))


def _phases(values: flags.FlagValues) -> tuple[ex.PhaseSpec, ...]:
    """What --phases, --epochs, --learning_rates and --phase_bits say, or their defaults."""
    names, epochs, rates = _lengths(values)
    return tuple(
        ex.PhaseSpec(
            name,
            *_numbers(int, "epochs", [number]),
            *_numbers(float, "learning_rates", [rate]),
            rate_is_default=values.learning_rates is None,
            bits=bits,
        )
        for name, number, rate, bits in zip(names, epochs, rates, _phase_bits(values, names), strict=True)
    )


def _phase_bits(values: flags.FlagValues, names: list[str]) -> list[tuple[int, int] | None]:
    """Bit widths of each phase; None for the experiment's own, and for a float phase."""
    if not values.phase_bits:
        return [None] * len(names)
    ex.require(
        len(values.phase_bits) == len(names),
        f"--phase_bits has {counted(len(values.phase_bits), 'entry')} and --phases {len(names)}; give one per "
        "phase, or leave it out for --weight_bits and --activation_bits in all of them",
    )
    return [
        None if (name, text) == ("full_precision", ex.FLOAT_BITS) else ex.bit_widths(text, "--phase_bits")
        for name, text in zip(names, values.phase_bits, strict=True)
    ]


def _lengths(values: flags.FlagValues) -> tuple[list[str], list[str], list[str]]:
    """Phases, epochs and learning rates as texts, one of each per phase."""
    names = ex.default_phases(bool(values.teacher)) if values.phases is None else values.phases
    if not names:
        return [], [], []
    for name in names:
        ex.require_known(name, ex.PHASES, "phase", "--phases")
    rates = [str(ex.LEARNING_RATE)] if values.learning_rates is None else values.learning_rates
    given = values.epochs or [str(ex.EPOCHS[name]) for name in names], rates
    epochs, rates = (numbers * len(names) if len(numbers) == 1 else numbers for numbers in given)
    ex.require(
        len(names) == len(epochs) == len(rates),
        f"--phases has {counted(len(names), 'entry')}, --epochs {len(given[0])} and --learning_rates {len(given[1])}; "
        "give one of each per phase, or one for all",
    )
    return names, epochs, rates


def notes(values: flags.FlagValues = FLAGS) -> list[str]:
    """Notes on how open phases and epochs are settled, one per line.

    Raises:
      ExperimentError: as `experiment_from_flags`.
    """
    left_open = [f"--{name}" for name in ("phases", "epochs") if not values[name].value]
    if values.phases == [] or not left_open:
        return []
    lengths = {} if values.epochs else {phase.name: f" for {phase.epochs} epochs" for phase in _phases(values)}
    phases = ", ".join(phase.name + lengths.get(phase.name, "") for phase in _phases(values))
    alone = "" if values.teacher or values.phases else " without a teacher"
    return [f"note: the run trains {phases}, the default of {' and '.join(left_open)}{alone}"]


def flags_of(options: Mapping[str, object]) -> flags.FlagValues:
    """The package's flags from Python options by name, with numbers and lists as they are; others have their defaults.

    Raises:
      ExperimentError: no flag of that name, or a value that it does not allow.
    """
    values = copy.deepcopy(FLAGS)
    unparse(values)
    for name, value in options.items():
        hint = meant(name, values, "docs/flags.md has them")
        ex.require(name in values, f"there is no option {name}; options are the flags of qkd_tf.train, {hint}")
        try:
            values[name].parse(_argument(values[name], value))
        except flags.IllegalFlagValueError as error:
            raise ex.ExperimentError(str(error).removeprefix("flag ")) from None
    values.mark_as_parsed()
    return values


def unparse(values: flags.FlagValues) -> None:
    """Sets all flags back to their defaults: absl's own function logs, and makes a handler for the whole process."""
    for name in values:
        values[name].unparse()


def _argument(flag: flags.Flag, value: object) -> object:
    """What the flag's parser takes: numbers and texts as they are, lists and dicts as texts."""
    value = value.tolist() if hasattr(value, "tolist") else value  # an array or a number of NumPy's
    if isinstance(flag, flags.MultiFlag) or isinstance(flag.parser, flags.ListParser):
        if isinstance(value, Mapping):
            return [f"{key}:{entry}" for key, entry in value.items()]
        return [str(entry) for entry in value] if isinstance(value, list | tuple) else [str(value)]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def adopt_begun(values: flags.FlagValues = FLAGS) -> None:
    """Gives open flags the values with which the run in --run_dir began, if an earlier version had no open flags."""
    path = pathlib.Path(values.run_dir or "none", FLAGS_FILE)
    begun = path.read_text(errors="replace").splitlines() if path.is_file() else []
    for name, text in EARLIER_DEFAULTS.items():
        if values[name].value is None and f"--{name}={text}" in begun:
            values[name].parse(text)


def flag_lines(values: flags.FlagValues = FLAGS, changed_only: bool = False) -> list[str]:
    """The package's flags, or only those that are not defaults, as lines of a flag file for the same experiment.

    Without `changed_only`, open phases and epochs are written as settled, and --bits as the flags that it stands for;
    --bits=auto is written without them.

    Raises:
      ExperimentError: as `experiment_from_flags`.
    """
    if not changed_only:
        names, epochs, _ = _lengths(values)
        settled = {"phases": names, "epochs": epochs, **_widths(values), "bits": None}
        if _finds_bits(values):
            settled |= {**dict.fromkeys(WIDTHS), "bits": ex.AUTO_BITS}
        values = copy.deepcopy(values)
        for name, value in settled.items():
            values[name].value = value
    return [
        flag.serialize()
        for flag in map(values.__getitem__, FLAGS)
        if flag.value is not None and not (changed_only and flag.value == flag.default)
    ]


def _spec(values: flags.FlagValues, kind, **given):
    """A spec from its fields' flags and from `given`; an open flag takes the field's default."""
    told = {field: values[option.name].value for field, option in ex.options(kind)}
    return kind(**({field: value for field, value in told.items() if value is not None} | given))


def _normalization(values: flags.FlagValues, prefix: str, default: tuple[str, ...] = ()) -> ex.PixelNormalization:
    """The normalisation of PREFIX_mean and PREFIX_std; an empty one takes its number from `default`."""
    mean, std = (
        tuple(_numbers(float, flag, values[flag].value or list(default[place : place + 1])))
        for place, flag in enumerate((f"{prefix}_mean", f"{prefix}_std"))
    )
    try:
        return ex.PixelNormalization(mean, std)
    except ex.ExperimentError as error:
        raise ex.ExperimentError(f"--{prefix}_mean, --{prefix}_std: {error}") from None


def _numbers(kind, flag: str, values: list[str]) -> list:
    try:
        return [kind(value) for value in values]
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise ex.ExperimentError(f"--{flag}={','.join(values)}: {expected} are expected") from None
