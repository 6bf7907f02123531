"""What a student will be, layer by layer, before anything is trained: python -m qkd_tf.preflight --flagfile=FILE."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tf_keras
from absl import app

from qkd_tf import data, flags, networks
from qkd_tf.console import command_line
from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    ExperimentError,
    QuantizationSpec,
    TargetSpec,
    require,
    require_count,
)
from qkd_tf.models.copier import leaves
from qkd_tf.networks import Network
from qkd_tf.outcome import handoff
from qkd_tf.process import random_state
from qkd_tf.quantization.plan import QuantizationPlan, make_plan
from qkd_tf.quantization.refusals import problems
from qkd_tf.quantization.roles import KERNELS, parents, role
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.quantization.student_reading import UnsupportedLayers

FLAGS = copy.deepcopy(flags.FLAGS)  # those of the training, and its own
FLAGS.DEFINE_integer("num_classes", 0, "Classes of a set that is not at hand; with --image_size and --image_channels.")

BIAS_BYTES = 4
NUM_PROOF_IMAGES = 32
# MobileNetV2 at 4 bits lost by rates above the second on fewer pictures than the first.
FEW_PICTURES, RATE_OF_FEW = 10_000, 0.001
HEADER = ("layer", "kind", "w bits", "in bits", "output", "parameters", "multiply-adds", "bytes", "")
_layers = tf_keras.layers


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One layer of the table.

    Attributes:
      weight_bits, input_bits: of its kernel and of the tensor that it reads; None where there is none.
      output_shape: of one example.
      parameters: trained ones that the file holds: kernel and bias, with BatchNorm folded into both.
      multiply_adds: of one example.
      num_bytes: of kernel at its width and int32 bias.
      fits_int4: whether its kernel can be stored as INT4.
      problem: what keeps it from becoming integer and what to do, "" if nothing.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    weight_bits: int | None = None
    input_bits: int | None = None
    parameters: int = 0
    multiply_adds: int = 0
    num_bytes: int = 0
    fits_int4: bool = False
    problem: str = ""

    def cells(self) -> tuple[str, ...]:
        numbers = [f"{n:,}" if n else "" for n in (self.parameters, self.multiply_adds, self.num_bytes)]
        bits = ["" if b is None else str(b) for b in (self.weight_bits, self.input_bits)]
        shape = "x".join(str(d) for d in self.output_shape)
        return (self.name, self.kind, *bits, shape, *numbers, self.problem and f"REFUSED: {self.problem}")


def refused_rows(model: tf_keras.Model, refusals: Mapping[str, str]) -> list[LayerRow]:
    """The layers of a model that cannot be planned, `refusals` by layer name."""
    return [
        LayerRow(layer.name, type(layer).__name__, _shape(layer), problem=refusals.get(layer.name, ""))
        for layer in leaves(model)
    ]


def rows(model: tf_keras.Model, plan: QuantizationPlan) -> list[LayerRow]:
    """The layers of a model in standard form, with what the plan makes of them."""
    bits = _bits_handed_on(model, plan)
    found = []
    for layer in model.layers:
        (before, *_) = [*parents(layer), None]
        input_bits = None if before is None else bits[plan.requantized.get((before.name, layer.name), before.name)]
        row = LayerRow(layer.name, type(layer).__name__, _shape(layer), input_bits=input_bits)
        if role(layer) == "compute":
            kernel = math.prod(getattr(layer, KERNELS[type(layer)]).shape)
            bias = layer.output_shape[-1]
            grid = plan.weight_grids[layer.name]
            weight_bits = grid.num_bits
            row = dataclasses.replace(
                row,
                weight_bits=weight_bits,
                parameters=kernel + bias,
                multiply_adds=MULTIPLY_ADDS[type(layer)](layer),
                num_bytes=-(-kernel * weight_bits // 8) + BIAS_BYTES * bias,
                fits_int4=grid.fits_int4,
            )
        elif role(layer) in ("fold", "pass", "pixels"):
            row = dataclasses.replace(row, input_bits=None)
        found.append(row)
    return found


def _bits_handed_on(model: tf_keras.Model, plan: QuantizationPlan) -> dict[str, int | None]:
    """Bit width of the tensor that a layer hands on, requantized ones included; None inside of an operator."""
    bits: dict[str, int | None] = {name: grid.num_bits for name, grid in plan.output_grids.items()}
    for layer in model.layers:
        if layer.name not in bits:
            before = parents(layer)
            bits[layer.name] = None
            if role(layer) == "pass":
                (before,) = before
                bits[layer.name] = bits[plan.requantized.get((before.name, layer.name), before.name)]
    return bits


def _kernel_size(layer) -> int:
    return math.prod(getattr(layer, KERNELS[type(layer)]).shape)


def _map_size(layer) -> int:
    return math.prod(layer.output_shape[1:3])


MULTIPLY_ADDS: Mapping[type, Callable] = {
    _layers.Conv2D: lambda layer: _kernel_size(layer) * _map_size(layer),
    _layers.DepthwiseConv2D: lambda layer: _kernel_size(layer) * _map_size(layer),
    _layers.Dense: _kernel_size,
}


def _shape(layer) -> tuple[int | None, ...]:
    """Of the first output where it is used first, without the batch."""
    return tuple(tf.nest.flatten(layer.inbound_nodes[0].outputs)[0].shape[1:])


def peak_activation_bytes(model: tf_keras.Model) -> int:
    """Largest sum of int8 tensors that must be there at once, layers in their order: a lower bound of the arena."""
    last_use = {p.name: index for index, layer in enumerate(model.layers) for p in parents(layer)}
    live, peak = {}, 0
    for index, layer in enumerate(model.layers):
        if role(layer) in ("fold", "pass"):  # writes where its input lies, or is a part of the operator before it
            before = parents(layer)[0].name
            live.pop(before, None) if last_use[before] == index else None
        live[layer.name] = math.prod(_shape(layer))
        peak = max(peak, sum(live.values()))
        for name in [name for name in live if last_use.get(name, len(model.layers)) <= index]:
            del live[name]
    return peak


def weight_bytes(table: list[LayerRow], target: TargetSpec) -> int:
    """Bytes of kernels and biases as the target stores them: whole bytes, or INT4 where that is its way."""
    total = 0
    for row in table:
        if row.weight_bits is not None:
            bias = row.output_shape[-1]
            packed = target.packs_int4 and row.fits_int4
            total += -(-(row.parameters - bias) // (2 if packed else 1)) + BIAS_BYTES * bias
    return total


def limits(table: list[LayerRow], model: tf_keras.Model, target: TargetSpec) -> list[str]:
    """What the target has no room for, or cannot run, a line each."""
    found = []
    flash, ram = weight_bytes(table, target), peak_activation_bytes(model)
    for flag, needed, limit, remedy in (
        ("max_flash_bytes", flash, target.max_flash_bytes, "a narrower student or fewer bits (--bits_rule)"),
        ("max_ram_bytes", ram, target.max_ram_bytes, "smaller pictures (--image_size) or a narrower student"),
    ):
        if limit and needed > limit:
            found.append(f"the student needs {needed:,} bytes or more, --{flag}={limit}; take {remedy}")
    if target.target == "ethos_u":
        found += [
            f"layer {layer.name} has strides {layer.strides}; an Ethos-U takes 1 to 3"
            for layer in model.layers
            if role(layer) == "compute" and max(getattr(layer, "strides", (1,))) > 3
        ]
    return found


def text(table: list[LayerRow]) -> str:
    """The table for a terminal."""
    cells = [HEADER, *(row.cells() for row in table)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    right = range(5, 8)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def check(model: tf_keras.Model, spec: QuantizationSpec, target: TargetSpec) -> None:
    """Prints the table of a student in standard form.

    Raises:
      ExperimentError: a layer that cannot become an integer operator, or a limit of the target.
    """
    if found := problems(model):
        refusals = {layer.name: line for layer in model.layers for line in found if f"layer {layer.name} " in line}
        print(text(refused_rows(model, refusals)))
        raise ExperimentError("this student cannot be quantized: " + "; ".join(found))
    table = rows(model, make_plan(model, spec))
    print(text(table))
    totals = [sum(getattr(row, field) for row in table) for field in ("parameters", "multiply_adds", "num_bytes")]
    print(
        f"{model.name}: {totals[0]:,} parameters, {totals[1]:,} multiply-adds, {totals[2]:,} bytes at these bits; "
        f"for {target.target} {weight_bytes(table, target):,} bytes of weights, "
        f"{peak_activation_bytes(model):,} bytes of activations at once"
    )
    if found := limits(table, model, target):
        raise ExperimentError("; ".join(found))


def student(experiment: Experiment, input_shape, num_classes: int, given: tf_keras.Model | None = None) -> Network:
    """An experiment's float student, checked.

    Args:
      given: as of `networks.build_student`.

    Raises:
      ExperimentError: as `check`; a network or weights that do not fit; nothing in it that may be trained.
    """
    try:
        network = networks.build_student(experiment.student, input_shape, num_classes, given)
    except UnsupportedLayers as error:
        print(text(refused_rows(error.model, error.refusals)))
        raise
    model = network.model
    check(model, experiment.quantization, experiment.target)
    depthwise = any(isinstance(layer, _layers.DepthwiseConv2D) for layer in leaves(model))
    if depthwise and experiment.training.mixed_precision == "bfloat16":
        network.notes.append(
            f"note: {model.name} has depthwise convolutions, on which --mixed_precision=bfloat16 is slower than float32"
        )
    _require_compilable(experiment, model)
    trains = not experiment.student.has_weights and "full_precision" in experiment.training.phase_names
    require(
        not trains or bool(model.trainable_variables),
        f"the student {model.name} is frozen, trainable = False, and full_precision trains it; set trainable = True",
    )
    return network


def teacher(experiment: Experiment, input_shape, num_classes: int, given: tf_keras.Model | None = None) -> Network:
    """An experiment's teacher, as `student`."""
    network = networks.build_teacher(experiment.teacher, input_shape, num_classes, given)
    _require_compilable(experiment, network.model)
    trains = {"co_studying"} | ({"full_precision"} if not experiment.teacher.has_weights else set())
    phases = [name for name in experiment.training.phase_names if name in trains]
    require(
        not phases or bool(network.model.trainable_variables),
        f"the teacher {network.model.name} is frozen, trainable = False, and {' and '.join(phases)} would train it; "
        "set teacher.trainable = True, or leave that phase out of --phases",
    )
    return network


def _require_compilable(experiment: Experiment, model: tf_keras.Model) -> None:
    """XLA has no deterministic gradient of a maximum over windows."""
    training = experiment.training
    pools = [layer.name for layer in leaves(model) if isinstance(layer, _layers.MaxPooling2D)]
    require(
        not (pools and training.jit_compile and random_state.is_deterministic(training.deterministic)),
        f"layer {pools[0] if pools else ''} of {model.name} is a MaxPooling2D, which XLA cannot train "
        "deterministically; leave --jit_compile out, or give --nodeterministic",
    )


def proof_images(spec: DataSpec, source: data.Source) -> np.ndarray:
    """Training pictures [N, H, W, C] uint8 on which networks are compared with those that came."""
    return data.sample(source, spec, NUM_PROOF_IMAGES)[0]


def few_pictures_notes(experiment: Experiment, num_train: int) -> list[str]:
    """What to know of a student that came with weights and is to train on few pictures."""
    fastest = max((phase.learning_rate for phase in experiment.training.phases), default=0.0)
    if not experiment.student.has_weights or num_train >= FEW_PICTURES or fastest <= RATE_OF_FEW:
        return []
    return [
        f"note: {num_train:,} training images and a student that came with weights: --learning_rates={fastest:g} takes "
        f"more from it than so few can give; begin with {RATE_OF_FEW:g} "
        '(benchmarks/README.md, "The flagship", has what was measured)'
    ]


def look(experiment: Experiment, num_classes: int = 0) -> None:
    """Prints what the networks of an experiment will be; nothing is written or trained.

    Args:
      num_classes: of a set that is not at hand; 0 where the set tells.

    Raises:
      ExperimentError: whatever would keep it from being trained, as far as its networks tell.
    """
    networks.check_name(experiment.student, "--student")
    if experiment.teacher:
        networks.check_name(experiment.teacher, "--teacher")
    shape, num_classes, images, source = _pictures(experiment.data, num_classes)
    found = [student(experiment, shape, num_classes)]
    if experiment.teacher:
        found.append(teacher(experiment, shape, num_classes))
    for network in found:
        network.prove(images)
        for note in network.notes:
            print(note)
    quantized = quantize_student(found[0].model, experiment.quantization)
    print(quantized.summary())
    handoff.require_readable(quantized)
    if source is not None:
        data.require_enough(source, experiment.data)
        for note in few_pictures_notes(experiment, source.train.num_examples):
            print(note)


def _pictures(spec: DataSpec, num_classes: int) -> tuple[tuple[int, int, int], int, np.ndarray, data.Source | None]:
    """(Shape, number of classes, pictures, set), as the set itself or flags tell; None where it is not there."""
    require_count(num_classes, "num_classes", why="0 takes those of the set")
    if num_classes:
        require(spec.image_size > 0, f"--num_classes={num_classes} without --image_size; give both")
        shape, reason = (spec.image_size, spec.image_size, spec.image_channels or 3), "--num_classes stands for a set"
    else:
        shape, label_names = data.describe(spec)
        num_classes = len(label_names)
        try:
            source = data.open_source(spec)
            images = proof_images(spec, source)
        except ExperimentError as error:
            reason = str(error)
        else:
            return shape, num_classes, images, source
    print(f"note: networks are compared on noise, not on pictures: {reason}")
    noise = np.random.default_rng(0).integers(0, 256, (NUM_PROOF_IMAGES, *shape)).astype(np.uint8)
    return shape, num_classes, noise, None


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        look(flags.experiment_from_flags(FLAGS, trains=False), FLAGS.num_classes)
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
