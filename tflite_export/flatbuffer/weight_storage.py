"""The form in which each kernel is stored."""

import dataclasses
from collections.abc import Callable, Collection

from qkd_tf.contract import weight_storage as rule
from qkd_tf.contract.targets import Target
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor

NUM_NAMED = 3  # kernels that a note names; the others are counted


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a kernel is stored.

    Attributes:
      operator, kernel: as the file stores them.
      why: the reason, in words.
    """

    operator: Operator
    kernel: Tensor
    why: str


def store(graph: IntegerGraph, weight_storage: str, target: Target) -> IntegerGraph:
    """The graph with each kernel in the form in which it is stored; the integers are the same.

    Raises:
      ExportError: INT4 is asked for, and the target has none.
    """
    storage = target.storage(weight_storage)
    why = target.reason if weight_storage == "auto" else "as requested"
    if storage == "int8":
        return _as_int8(graph, why, next(iter(target.int4), None) if weight_storage == "auto" else None, target)
    if not target.int4:
        raise ExportError(
            f"--weight_storage={storage} is not possible: {target.title} does not run it ({target.reason}); "
            "use --weight_storage=int8 or auto"
        )
    stored = _with(graph, lambda operator, kernel: _choice(graph, operator, kernel, storage, target))
    return dataclasses.replace(stored, notes=graph.notes + _notes(stored, why))


def _as_int8(graph: IntegerGraph, why: str, smaller: str | None, target: Target) -> IntegerGraph:
    """The graph with every kernel as int8.

    Args:
      smaller: the target's storage to mention if it would pack a kernel; None to mention none.
    """
    whys, saved = {}, []
    for operator, kernel in graph.kernels():
        other = _choice(graph, operator, kernel, smaller, target) if smaller else None
        if other is not None and other.kernel.dtype == "int4":
            saved.append((kernel.num_bytes, other.kernel.num_bytes))
            whys[kernel.name] = f"{why}; --weight_storage={smaller} halves its bytes"
        else:
            whys[kernel.name] = other.why if other is not None else why
    note = f"weights are stored as int8: {why}"
    if saved:
        before, after = map(sum, zip(*saved, strict=True))
        note += f"; --weight_storage={smaller} stores {len(saved)} of {len(whys)} kernels in {after:,} bytes, "
        note += f"instead of {before:,}"
    stored = _with(graph, lambda operator, kernel: Choice(operator, kernel, whys[kernel.name]))
    return dataclasses.replace(stored, notes=[*graph.notes, note])


def stored_as(expected: IntegerGraph, found: IntegerGraph, target: Target) -> IntegerGraph:
    """`expected` with INT4 for the kernels that a file stores so, in its form, if they fit and the target allows it."""

    def choose(operator: Operator, kernel: Tensor) -> Choice:
        stored = found.tensors.get(kernel.name)
        choices = [_choice(expected, operator, kernel, storage, target) for storage in target.int4]
        like = [c for c in choices if stored and (c.kernel.dtype, c.kernel.shape) == (stored.dtype, stored.shape)]
        return like[0] if like else Choice(operator, kernel, "as the file has it")

    return _with(expected, choose)


def unpacked(graph: IntegerGraph, names: Collection[str] | None = None) -> IntegerGraph:
    """The graph with every kernel, or only the named ones, stored as int8; operators stay the same."""
    plain = {
        name: dataclasses.replace(tensor, dtype="int8")
        for name, tensor in graph.tensors.items()
        if tensor.dtype == "int4" and (names is None or name in names)
    }
    return dataclasses.replace(graph, tensors=graph.tensors | plain)


def _with(graph: IntegerGraph, choose: Callable[[Operator, Tensor], Choice]) -> IntegerGraph:
    """The graph with its kernels as chosen, each with the reason."""
    choices = {kernel.name: choose(operator, kernel) for operator, kernel in graph.kernels()}
    of_output = {choice.operator.output: choice.operator for choice in choices.values()}
    return dataclasses.replace(
        graph,
        tensors=graph.tensors | {name: choice.kernel for name, choice in choices.items()},
        operators=[of_output.get(operator.output, operator) for operator in graph.operators],
        storage={name: choice.why for name, choice in choices.items()},
    )


def _choice(graph: IntegerGraph, operator: Operator, kernel: Tensor, storage: str, target: Target) -> Choice:
    """The choice by the contract's rule."""
    form = rule.form(_told(graph, operator, kernel), storage, target)
    if not form.is_int4:
        return Choice(operator, kernel, form.why)
    packed = dataclasses.replace(kernel, dtype="int4")
    if form.operator == operator.kind:
        return Choice(operator, packed, form.why)
    return Choice(*_as_dense(operator, packed), form.why)


def _told(graph: IntegerGraph, operator: Operator, kernel: Tensor) -> rule.Kernel:
    """A kernel as the rule describes it."""
    read = kernel.shape[-1] if operator.kind == "FULLY_CONNECTED" else graph.tensors[operator.inputs[0]].shape[3]
    is_depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    return rule.Kernel(
        operator.kind,
        is_pointwise=_is_pointwise(graph, operator, kernel),
        is_dilated={operator.options.get("dilation_h", 1), operator.options.get("dilation_w", 1)} != {1},
        is_grouped=not is_depthwise and kernel.shape[-1] != read,
        num_inputs=read if is_depthwise else kernel.shape[-1],
        num_channels=kernel.shape[3 if is_depthwise else 0],
        per_channel=kernel.axis is not None,
        largest=max(-int(kernel.integers.min()), int(kernel.integers.max())),
    )


def _is_pointwise(graph: IntegerGraph, operator: Operator, kernel: Tensor) -> bool:
    """Whether an operator is a 1x1 convolution, the same as a Dense layer at each pixel."""
    if operator.kind != "CONV_2D" or kernel.shape[3] != graph.tensors[operator.inputs[0]].shape[3]:
        return False
    steps = ("stride_h", "stride_w", "dilation_h", "dilation_w")
    return {*kernel.shape[1:3], *(operator.options[step] for step in steps)} == {1}


def _as_dense(operator: Operator, kernel: Tensor) -> tuple[Operator, Tensor]:
    options = {"activation": operator.options["activation"], "keep_num_dims": True}
    dense = Operator("FULLY_CONNECTED", operator.inputs, operator.output, options)
    shape = kernel.shape[0], kernel.shape[3]
    return dense, dataclasses.replace(kernel, shape=shape, data=kernel.integers.reshape(shape))


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
