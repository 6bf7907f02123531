"""What each target can run, and how its weights are stored: a row each."""

import dataclasses
from collections.abc import Callable, Mapping

from qkd_tf.integers.runtime_arithmetic import INT4_MAX
from tflite_export.bundles import micro_bundle, phone_bundle
from tflite_export.bundles.bundle import Delivery
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.load import ExportError

WEIGHT_STORAGES = ("auto", "int8", "int4")
NUM_NAMED = 3  # kernels that a note names; the others are counted


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
      title: for people.
      judges: runtimes that decide whether a file passes; the first that is installed.
      input_type: "uint8" takes pixels, "int8" pixel - 128.
      int4: operators that take INT4 weights -> whether with one scale a channel, too.
      auto: how weights that fit INT4 are stored unless a user says otherwise.
      reason: why so.
      compressed: whether weights are also written at their true width, under lookup tables.
      bundle: what goes to an engineer with a file that passed -> files by path below export/; None for the file alone.
    """

    title: str
    judges: tuple[str, ...]
    input_type: str
    int4: Mapping[str, bool]
    auto: str
    reason: str
    compressed: bool = False
    bundle: Callable[[Delivery], dict[str, bytes]] | None = None


TARGETS: Mapping[str, Target] = {
    "phone": Target(
        "a phone with LiteRT",
        judges=("litert",),
        input_type="uint8",
        int4={"CONV_2D": True, "DEPTHWISE_CONV_2D": True, "FULLY_CONNECTED": True},
        auto="int8",
        reason="LiteRT runs INT4 convolutions outside XNNPACK, and slower; "
        "--weight_storage=int4 trades that for half the bytes",
        bundle=phone_bundle.files,
    ),
    "microcontroller": Target(
        "a microcontroller with TensorFlow Lite for Microcontrollers",
        judges=("tflm", "litert_reference"),
        input_type="int8",
        int4={"CONV_2D": True, "DEPTHWISE_CONV_2D": True, "FULLY_CONNECTED": False},
        auto="int4",
        reason="flash is what is short there; TFLM unpacks INT4 weights in its arena",
        compressed=True,
        bundle=micro_bundle.files,
    ),
    "ethos_u": Target(
        "an Ethos-U NPU",
        judges=("tflm", "litert_reference"),
        input_type="int8",
        int4={},
        auto="int8",
        reason="Arm's compiler for it, Vela, takes no INT4, and compresses weights itself",
    ),
}


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
    packed, kept = {}, {}
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
    if max(-int(kernel.data.min()), int(kernel.data.max())) > INT4_MAX:
        return f"integers beyond {INT4_MAX}"
    if operator.kind == "FULLY_CONNECTED" and kernel.shape[1] % 2:
        return "an odd number of inputs"  # LiteRT leaves these to kernels that round in another way
    if operator.kind not in target.int4:
        return f"no INT4 {operator.kind} there"
    if kernel.axis is not None and not target.int4[operator.kind]:
        return f"no INT4 {operator.kind} with a scale for each channel there"
    return None
