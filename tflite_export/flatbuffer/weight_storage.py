"""The form in which each kernel is stored."""

import dataclasses
from collections.abc import Callable

from qkd_tf.contract.grid import INT4_MAX
from qkd_tf.contract.kinds import POINTWISE_CONVOLUTION
from qkd_tf.contract.targets import Target
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor

WEIGHT_STORAGES = ("auto", "int8", "int4", "int4_all")
NUM_NAMED = 3  # kernels that a note names; the others are counted


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a kernel is stored.

    Attributes:
      operator, kernel: as they stand in the file.
      why: for people.
    """

    operator: Operator
    kernel: Tensor
    why: str


def store(graph: IntegerGraph, weight_storage: str, target: Target) -> IntegerGraph:
    """The graph with each kernel in the form that it is stored in; the integers are the same.

    Raises:
      ExportError: INT4 is asked for where the target has none.
    """
    storage = target.auto if weight_storage == "auto" else weight_storage
    why = target.reason if weight_storage == "auto" else "as requested"
    if storage == "int8":
        stored = _with(graph, lambda operator, kernel: Choice(operator, kernel, why))
        return dataclasses.replace(stored, notes=[*graph.notes, f"weights are stored as int8: {why}"])
    if not target.int4:
        raise ExportError(
            f"--weight_storage={storage} is not possible: {target.title} does not run it ({target.reason}); "
            "use --weight_storage=int8 or auto"
        )
    stored = _with(graph, lambda operator, kernel: _choice(graph, operator, kernel, storage, target))
    return dataclasses.replace(stored, notes=graph.notes + _notes(stored, why))


def stored_as(expected: IntegerGraph, found: IntegerGraph, target: Target) -> IntegerGraph:
    """`expected` with INT4 for the kernels that a file stores so, in its form, where they fit and the target has it."""

    def choose(operator: Operator, kernel: Tensor) -> Choice:
        stored = found.tensors.get(kernel.name)
        choices = [_choice(expected, operator, kernel, storage, target) for storage in target.int4]
        like = [c for c in choices if stored and (c.kernel.dtype, c.kernel.shape) == (stored.dtype, stored.shape)]
        return like[0] if like else Choice(operator, kernel, "as the file has it")

    return _with(expected, choose)


def unpacked(graph: IntegerGraph) -> IntegerGraph:
    """The graph with every kernel stored as int8, by the operators that it has."""
    plain = {n: dataclasses.replace(t, dtype="int8") for n, t in graph.tensors.items() if t.dtype == "int4"}
    return dataclasses.replace(graph, tensors=graph.tensors | plain)


def _with(graph: IntegerGraph, choose: Callable[[Operator, Tensor], Choice]) -> IntegerGraph:
    """The graph with its kernels as they are chosen, each with the reason."""
    choices = {kernel.name: choose(operator, kernel) for operator, kernel in graph.kernels()}
    of_output = {choice.operator.output: choice.operator for choice in choices.values()}
    return dataclasses.replace(
        graph,
        tensors=graph.tensors | {name: choice.kernel for name, choice in choices.items()},
        operators=[of_output.get(operator.output, operator) for operator in graph.operators],
        storage={name: choice.why for name, choice in choices.items()},
    )


def _choice(graph: IntegerGraph, operator: Operator, kernel: Tensor, storage: str, target: Target) -> Choice:
    """INT4 where the storage packs such kernels, and nothing keeps this one from it."""
    packs = target.int4[storage]
    kind = POINTWISE_CONVOLUTION if _is_pointwise(graph, operator, kernel) else operator.kind
    written, packed = operator, dataclasses.replace(kernel, dtype="int4")
    if kind in packs and kind == POINTWISE_CONVOLUTION:
        written, packed = _as_dense(operator, packed)
    obstacle = _obstacle(written, packed, packs.get(kind, packs.get(operator.kind)), target)
    if obstacle is not None:
        return Choice(operator, kernel, obstacle)
    return Choice(written, packed, "as INT4" if written is operator else f"as INT4 {written.kind}: {kind}")


def _is_pointwise(graph: IntegerGraph, operator: Operator, kernel: Tensor) -> bool:
    """Whether an operator is a convolution that a Dense layer at each pixel computes."""
    if operator.kind != "CONV_2D" or kernel.shape[3] != graph.tensors[operator.inputs[0]].shape[3]:
        return False
    steps = ("stride_h", "stride_w", "dilation_h", "dilation_w")
    return {*kernel.shape[1:3], *(operator.options[step] for step in steps)} == {1}


def _as_dense(operator: Operator, kernel: Tensor) -> tuple[Operator, Tensor]:
    options = {"activation": operator.options["activation"], "keep_num_dims": True}
    dense = Operator("FULLY_CONNECTED", operator.inputs, operator.output, options)
    shape = kernel.shape[0], kernel.shape[3]
    return dense, dataclasses.replace(kernel, shape=shape, data=kernel.integers.reshape(shape))


def _obstacle(operator: Operator, kernel: Tensor, per_channel: bool | None, target: Target) -> str | None:
    """What keeps a kernel from being stored as INT4.

    Args:
      operator, kernel: as they would stand in the file.
      per_channel: whether the storage packs kernels with a scale for each channel, too; None where it packs none.
    """
    if max(-int(kernel.integers.min()), int(kernel.integers.max())) > INT4_MAX:
        return f"integers beyond {INT4_MAX}"
    if operator.kind == "FULLY_CONNECTED" and kernel.shape[1] % 2:
        return "an odd number of inputs"  # LiteRT leaves these to kernels that round in another way
    if per_channel is None:
        others = [storage for storage, packs in target.int4.items() if operator.kind in packs]
        more = f"; --weight_storage={others[0]} packs it anyway" if others else ""
        return f"INT4 {operator.kind} is slower there{more}" if others else f"no INT4 {operator.kind} there"
    dilated = {operator.options.get("dilation_h", 1), operator.options.get("dilation_w", 1)} != {1}
    if operator.kind == "DEPTHWISE_CONV_2D" and dilated and kernel.shape[3] % 2 and not target.odd_dilated_depthwise:
        return "dilation and an odd number of channels, which CMSIS-NN computes wrongly in INT4"
    if kernel.axis is not None and not per_channel:
        return f"no INT4 {operator.kind} with a scale for each channel there"
    return None


def _notes(stored: IntegerGraph, why: str) -> list[str]:
    packed: list[str] = []
    kept: dict[str, list[str]] = {}  # by what keeps them
    for _, kernel in stored.kernels():
        names = packed if kernel.dtype == "int4" else kept.setdefault(stored.storage[kernel.name], [])
        names.append(kernel.name)
    number = "1 kernel is" if len(packed) == 1 else f"{len(packed)} kernels are"
    notes = [f"{number} stored as INT4, two integers per byte: {why}"] if packed else []
    if kept:
        told = (f"{_first(names)} ({obstacle})" for obstacle, names in kept.items())
        notes.append(f"stored as int8: {', '.join(told)}")
    return notes


def _first(names: list[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
