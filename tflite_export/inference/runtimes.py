"""The runtimes that run a file, a row each: LiteRT's default and reference kernels, and TFLM."""

import dataclasses
import importlib
import math
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tqdm import tqdm

from qkd_tf.console.chatter import quiet
from qkd_tf.console.nearest import meant
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, Arithmetic, int4_row
from qkd_tf.process.cpu import ARM64
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph

TFLM_MODULE = "tflite_micro.python.tflite_micro.runtime"
ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


class Images(Protocol):
    """[N, H, W, C] uint8 pixels to iterate over: an array, or an object that decodes them again."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


class Session(Protocol):
    """A file opened in a runtime."""

    def set_input(self, codes: np.ndarray) -> None: ...

    def invoke(self) -> None: ...

    def output(self) -> np.ndarray: ...

    def read(self, name: str) -> np.ndarray: ...

    def facts(self) -> dict: ...


OpenSession = Callable[[IntegerGraph, bytes, bool], Session]
NewLiteRT = Callable[..., Interpreter]  # with the arguments of ai_edge_litert's class


class LiteRTSession:
    """A file in a LiteRT interpreter, one thread."""

    def __init__(
        self, graph: IntegerGraph, content: bytes, every_tensor: bool, resolver: OpResolverType, interpreter: NewLiteRT
    ):
        self._graph = graph
        if every_tensor:  # the default kernels keep inner tensors to themselves unless they are outputs
            content = convert(graph, "", outputs=[operator.output for operator in graph.operators])
        self._interpreter = interpreter(model_content=content, experimental_op_resolver_type=resolver)
        with quiet():
            self._interpreter.allocate_tensors()
        details = self._interpreter.get_tensor_details()
        self._index = {detail["name"]: detail["index"] for detail in details}

    def set_input(self, codes: np.ndarray) -> None:
        self._interpreter.set_tensor(self._index[self._graph.input], codes)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        return self.read(self._graph.output)

    def read(self, name: str) -> np.ndarray:
        return self._interpreter.get_tensor(self._index[name])

    def facts(self) -> dict:
        return {"delegated_operators": delegated_operators(self._interpreter)}


class TFLMSession:
    """A file in TensorFlow Lite for Microcontrollers, as its Python package runs it on this machine."""

    def __init__(self, graph: IntegerGraph, content: bytes, every_tensor: bool):
        runtime = importlib.import_module(TFLM_MODULE)
        config = runtime.InterpreterConfig
        self._graph, self._records = graph, not every_tensor

        def open_file() -> None:
            self._interpreter = runtime.Interpreter.from_bytes(
                content,
                arena_size=_room(graph, content),
                intrepreter_config=config.kPreserveAllTensors if every_tensor else config.kAllocationRecording,
            )

        _printed(open_file)  # what it prints of a file that it does not take; the exception is told
        self._index = {name: index for index, name in enumerate(graph.tensors)}

    def set_input(self, codes: np.ndarray) -> None:
        self._interpreter.set_input(codes, 0)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        return self._interpreter.get_output(0)

    def read(self, name: str) -> np.ndarray:
        shape = self._graph.tensors[name].shape
        return np.asarray(self._interpreter.GetTensor(self._index[name], 0)["tensor_data"]).reshape(shape)

    def facts(self) -> dict:
        """The arena that the interpreter allocated, in bytes, which TFLM only prints."""
        if not self._records:
            return {}
        total = ARENA_TOTAL.search(_printed(self._interpreter.print_allocations))
        return {"arena_bytes": int(total[1])} if total else {}


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One way to run a file.

    Attributes:
      title: for people.
      package: the Python package that has it.
      row: its row of ARITHMETICS.
      session: (graph of the file, content, whether every tensor will be read) -> session.
      max_apart: how many buffers, of activations and of what kernels need beside them, it can keep apart so that every
        tensor can be read; None for any number.
    """

    title: str
    package: str
    row: str
    session: OpenSession
    max_apart: int | None = None

    @property
    def arithmetic(self) -> Arithmetic:
        return ARITHMETICS[self.row]


def _room(graph: IntegerGraph, content: bytes) -> int:
    """Bytes of an arena that holds every activation at once; if it is too small, TFLM ends the process.

    TFLM's own default, ten times the file's bytes, is too small for large pictures and for tiny files.
    """
    activations = sum(math.prod(tensor.shape) for tensor in graph.tensors.values() if tensor.data is None)
    return 2**20 + 10 * len(content) + activations


def litert(interpreter: NewLiteRT, machine: str) -> dict[str, Runtime]:
    """LiteRT's rows.

    Args:
      interpreter: this process's Interpreter, or one that asks LiteRT on another processor.
      machine: the kind of its processor, as in `platform.machine()`.
    """

    def session(resolver: OpResolverType) -> OpenSession:
        return lambda graph, content, every_tensor: LiteRTSession(graph, content, every_tensor, resolver, interpreter)

    default, reference = session(OpResolverType.AUTO), session(OpResolverType.BUILTIN_REF)
    row = int4_row(machine.lower() in ARM64)
    return {
        "litert": Runtime("LiteRT, default kernels (XNNPACK)", "ai-edge-litert", row, default),
        "litert_reference": Runtime("LiteRT, reference kernels", "ai-edge-litert", "litert_reference", reference),
    }


RUNTIMES: Mapping[str, Runtime] = {
    **litert(Interpreter, platform.machine()),
    "tflm": Runtime("TensorFlow Lite for Microcontrollers", "tflite-micro", "tflm", TFLMSession, 1_024),
}

RUNTIMES_HELP = (
    "Runtimes that run the file; the target's judge is always one of them. litert runs the whole test split, the "
    "others its first 10.24 million pixels: 10,000 images of 32 x 32, 204 of 224 x 224."
)


def delegated_operators(interpreter: Interpreter) -> float:
    """Share of a file's operators that a delegate runs, in percent."""
    operators = interpreter._get_ops_details()
    made_by = {int(o["outputs"][0]): o for o in operators if o["op_name"] != "DELEGATE"}
    taken = set()
    for delegate in (o for o in operators if o["op_name"] == "DELEGATE"):
        ends, waiting = set(delegate["inputs"].tolist()), delegate["outputs"].tolist()
        while waiting:
            tensor = waiting.pop()
            if tensor in made_by and tensor not in ends and tensor not in taken:
                taken.add(tensor)
                waiting += made_by[tensor]["inputs"].tolist()
    return 100.0 * len(taken) / len(made_by)


def absence(name: str) -> str | None:
    """Why a runtime cannot run here; None if it can."""
    if name != "tflm":
        return None
    try:
        importlib.import_module(TFLM_MODULE)
    except ImportError:
        return "tflite-micro is not installed; pip install -r requirements-micro.txt, on Linux with x86-64"
    return None


def invalid(content: bytes) -> str | None:
    """Why LiteRT's verifier rejects a file as a flatbuffer; None if it does not. It does not check kernels."""
    try:
        Interpreter(model_content=content)
    except (RuntimeError, ValueError) as error:
        return f"not a .tflite that LiteRT takes: {str(error).splitlines()[0]}"
    return None


def check_names(names: Sequence[str]) -> Sequence[str]:
    """The names, checked.

    Raises:
      ExportError: no runtime has such a name.
    """
    for name in names:
        if name not in RUNTIMES:
            raise ExportError(f"unknown runtime {name!r} in --runtimes; {meant(name, RUNTIMES)}")
    return names


def infer(name: str, graph: IntegerGraph, content: bytes, images: Images) -> tuple[np.ndarray, dict]:
    """Runs a file on images, one at a time.

    Args:
      graph: what `read_back` finds in the file.
      images: [N, H, W, C] uint8 pixels.

    Returns:
      Logits as the file's integers, [N, K], and facts about the run: "median_seconds" per image, and the session's
      facts.

    Raises:
      ExportError: the runtime does not accept the file.
    """
    logits: list[np.ndarray] = []
    seconds: list[float] = []
    session = _open(name, graph, content, every_tensor=False)
    bar = tqdm(input_codes(graph, images), f"verify: {name}", len(images), unit="image", mininterval=1)
    for _ in _invocations(name, session, bar, seconds):
        logits.append(session.output()[0].copy())
    return np.stack(logits), {"median_seconds": float(np.median(seconds)), **session.facts()}


def every_tensor(name: str, graph: IntegerGraph, content: bytes, images: Images) -> dict[str, np.ndarray]:
    """The integers of every operator's output, [N, ...], by tensor name; otherwise as `infer`.

    Of a file with more tensors than the runtime can keep apart, those of the last output alone.
    """
    activations = sum(tensor.data is None for tensor in graph.tensors.values())
    most = activations + len(graph.operators)  # an operator may need a buffer of its own
    try:
        session = _open(name, graph, content, every_tensor=True)
    except ExportError:
        if most <= (RUNTIMES[name].max_apart or most):
            raise
        session = _open(name, graph, content, every_tensor=False)
        found = [session.output()[0].copy() for _ in _invocations(name, session, input_codes(graph, images), [])]
        return {graph.output: np.stack(found)}
    outputs = [graph.tensors[operator.output] for operator in graph.operators]
    seen = {tensor.name: np.empty((len(images), *tensor.shape[1:]), tensor.dtype) for tensor in outputs}
    for index, _ in enumerate(_invocations(name, session, input_codes(graph, images), [])):
        for tensor, values in seen.items():
            values[index] = session.read(tensor)[0]
    return seen


def input_codes(graph: IntegerGraph, images: Images) -> Iterator[np.ndarray]:
    """Each image as the integers [1, H, W, C] that the file's input takes."""
    dtype = graph.tensors[graph.input].dtype
    for image in images:
        yield (image.astype(np.int16) - (128 if dtype == "int8" else 0)).astype(dtype)[np.newaxis]


def _open(name: str, graph: IntegerGraph, content: bytes, every_tensor: bool) -> Session:
    try:
        return RUNTIMES[name].session(graph, content, every_tensor)
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{name} does not take the file: {str(error).splitlines()[0]}") from error


def _invocations(name: str, session: Session, codes: Iterable[np.ndarray], seconds: list[float]) -> Iterator[None]:
    """Runs image after image; yields after each, when tensors can be read."""
    for image in codes:
        session.set_input(image)
        start = time.perf_counter()
        try:
            session.invoke()
        except RuntimeError as error:
            raise ExportError(f"{name} stopped: {str(error).splitlines()[0]}") from error
        seconds.append(time.perf_counter() - start)
        yield


def _printed(function: Callable[[], object]) -> str:
    """What native code prints during the call, to stdout or stderr."""
    saved = [os.dup(1), os.dup(2)]
    sys.stdout.flush(), sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            function()
        finally:
            for stream, copy in enumerate(saved, 1):
                os.dup2(copy, stream)
                os.close(copy)
        file.seek(0)
        return file.read().decode(errors="replace")
