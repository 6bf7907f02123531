"""In which type each kernel is stored."""

import dataclasses

from qkd_tf.contract.grid import INT4_MAX
from qkd_tf.contract.targets import Target
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.load import ExportError

WEIGHT_STORAGES = ("auto", "int8", "int4")
NUM_NAMED = 3  # kernels that a note names; the others are counted


def store(graph: IntegerGraph, weight_storage: str, target: Target) -> IntegerGraph:
    """The graph with each kernel in the type that it is stored in; the integers are the same.

    Raises:
      ExportError: INT4 is asked for where the target has none.
    """
    storage = target.auto if weight_storage == "auto" else weight_storage
    if storage == "int4" and not target.int4:
        raise ExportError(
            f"--weight_storage=int4 was asked for, but {target.title} does not take it ({target.reason}); "
            "use --weight_storage=int8 or auto"
        )
    if storage == "int8":
        why = target.reason if weight_storage == "auto" else "as asked for"
        return dataclasses.replace(graph, notes=[*graph.notes, f"weights are stored as int8: {why}"])
    packed: dict[str, Tensor] = {}
    kept: dict[str, list[str]] = {}  # by what keeps them
    for operator, kernel in graph.kernels():
        obstacle = _obstacle(operator, kernel, target)
        if obstacle is None:
            packed[kernel.name] = dataclasses.replace(kernel, dtype="int4")
        else:
            kept.setdefault(obstacle, []).append(kernel.name)
    why = target.reason if weight_storage == "auto" else "as asked for"
    number = "1 kernel is" if len(packed) == 1 else f"{len(packed)} kernels are"
    notes = [f"{number} stored as INT4, two integers a byte: {why}"] if packed else []
    if kept:
        told = (f"{_first(names)} ({obstacle})" for obstacle, names in kept.items())
        notes.append(f"stored as int8: {', '.join(told)}")
    return dataclasses.replace(graph, tensors=graph.tensors | packed, notes=graph.notes + notes)


def _first(names: list[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def stored_as(expected: IntegerGraph, found: IntegerGraph, target: Target) -> IntegerGraph:
    """`expected` with INT4 for the kernels that a file stores so, where they fit and the target takes them."""
    packed = {
        kernel.name: dataclasses.replace(kernel, dtype="int4")
        for operator, kernel in expected.kernels()
        if kernel.name in found.tensors
        and found.tensors[kernel.name].dtype == "int4"
        and _obstacle(operator, kernel, target) is None
    }
    return dataclasses.replace(expected, tensors=expected.tensors | packed)


def unpacked(graph: IntegerGraph) -> IntegerGraph:
    """The graph with every kernel stored as int8."""
    plain = {n: dataclasses.replace(t, dtype="int8") for n, t in graph.tensors.items() if t.dtype == "int4"}
    return dataclasses.replace(graph, tensors=graph.tensors | plain)


def _obstacle(operator: Operator, kernel: Tensor, target: Target) -> str | None:
    """What keeps a kernel from being stored as INT4."""
    if max(-int(kernel.integers.min()), int(kernel.integers.max())) > INT4_MAX:
        return f"integers beyond {INT4_MAX}"
    if operator.kind == "FULLY_CONNECTED" and kernel.shape[1] % 2:
        return "an odd number of inputs"  # LiteRT leaves these to kernels that round in another way
    if operator.kind not in target.int4:
        return f"no INT4 {operator.kind} there"
    if kernel.axis is not None and not target.int4[operator.kind]:
        return f"no INT4 {operator.kind} with a scale for each channel there"
    return None
