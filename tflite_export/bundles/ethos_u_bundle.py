"""export/ethos_u/: the file that Vela compiles for an Ethos-U NPU, and its estimates beside those for 8-bit weights."""

import copy
import dataclasses

import numpy as np

from tflite_export.bundles import vela
from tflite_export.bundles.bundle import Delivery, render
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph

FOLDER = "ethos_u"
INT8_MAX = 127


def files(delivery: Delivery) -> dict[str, bytes]:
    """The bundle, by path below the export's folder; empty, with a note, if Vela is not installed.

    Vela's figures go into the delivery's verification, as "vela".

    Raises:
      ExportError: Vela does not accept the configuration, or fails.
    """
    if reason := vela.absence():
        delivery.verification["notes"].append(f"{FOLDER}/ was not written: {reason}")
        return {}
    compiled, figures = delivery.vela.compile(delivery.content)
    _, figures["at_8_bits"] = delivery.vela.compile(convert(at_8_bits(delivery.graph), ""))
    delivery.verification["vela"] = figures
    readme = render(f"{FOLDER}/README.md.j2", **delivery.facts, vela=figures, rows=rows(figures))
    return {f"{FOLDER}/model_vela.tflite": compiled, f"{FOLDER}/README.md": readme}


def at_8_bits(graph: IntegerGraph) -> IntegerGraph:
    """The same network with 8-bit kernels, for comparing sizes and cycles; its outputs mean nothing.

    Vela encodes weights by how often each integer occurs. So each integer of a narrower kernel is replaced by one of
    the 8-bit integers in its place, drawn evenly, which keeps the shape of the distribution.
    """
    wide = copy.copy(graph)
    wide.tensors = dict(graph.tensors)
    rng = np.random.default_rng(0)
    for _, kernel in graph.kernels():
        codes = kernel.integers.astype(np.float64)
        step = INT8_MAX / _highest(codes)
        drawn = (codes + rng.uniform(-0.5, 0.5, codes.shape)) * step
        data = np.clip(np.rint(drawn), -INT8_MAX, INT8_MAX).astype(np.int8)
        wide.tensors[kernel.name] = dataclasses.replace(kernel, data=data)
    return wide


def rows(figures: dict) -> list[tuple[str, str, str]]:
    """(What, for this file, with 8-bit weights), as text."""
    texts = {
        "cycles": ("cycles per inference", "{:,}"),
        "milliseconds": ("milliseconds per inference", "{:.3g}"),
        **{name: (name.removesuffix("_bytes").replace("_", " ") + ", bytes", "{:,}") for name in MEMORIES},
        "npu_operators": ("operators on the NPU", "{}"),
        "cpu_operators": ("operators on the CPU", "{}"),
    }
    other = figures["at_8_bits"]
    return [
        (what, text.format(figures.get(name, 0)), text.format(other.get(name, 0)))
        for name, (what, text) in texts.items()
        if name in figures or name in other
    ]


MEMORIES = tuple(vela.MEMORIES.values())


def _highest(codes: np.ndarray) -> int:
    """The highest integer of the smallest bit width that holds all of `codes`."""
    width = next(bits for bits in range(2, 9) if np.abs(codes).max() < 2 ** (bits - 1) or bits == 8)
    return 2 ** (width - 1) - 1
