"""export/micro/: a file as C++ for TensorFlow Lite for Microcontrollers, with golden images that check a board."""

import collections
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qkd_tf.contract.lookup_tables import DECODE_CODE_BYTES
from tflite_export.bundles import firmware
from tflite_export.bundles.bundle import Delivery, render
from tflite_export.bundles.cmsis_nn import scratch
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.read_back import BUILTINS
from tflite_export.flatbuffer.weight_storage import unpacked
from tflite_export.inference.runtimes import Images, absence, infer, input_codes

FOLDER = "micro"
SOURCES = ("model.h", "model.cc", "classifier.h", "classifier.cc", "golden.h", "golden.cc", "main.cc", "README.md")
MAX_GOLDEN_IMAGES = 4
GOLDEN_BYTES = 1 << 16  # of images, which lie in flash while a board is checked; one image goes in at any size
ARENA_MARGIN = 1.25  # a vendor's kernels may ask for buffers that the reference kernels have no use for
ARENA_PREPARATION = 1024  # TFLM allocates more for a moment when it prepares operators, which shows in small arenas
ARENA_STEP = 1024
NUM_LOOKED_AT = 1_000  # test images among which golden ones of different classes are sought
RUNTIME = "tflm"


def files(delivery: Delivery) -> dict[str, bytes]:
    """The bundle, by path below export/; empty, with a note, if TFLM is not installed to compute golden logits.

    The flash and RAM that it takes go into the delivery's verification, as "firmware".
    """
    if reason := absence(RUNTIME):
        delivery.verification["notes"].append(f"export/{FOLDER}/ was not written: {reason}")
        return {}
    graph, content = delivery.graph, delivery.content
    labels = np.asarray(delivery.handoff.test_labels)
    chosen = golden(labels, num_golden(graph.tensors[graph.input].shape))
    images = np.concatenate([delivery.handoff.test_images[index : index + 1] for index in chosen])
    logits, _ = infer(RUNTIME, graph, content, images)
    measured = delivery.verification["runtimes"][RUNTIME]["arena_bytes"]
    values = delivery.facts | {
        "output_size": logits[0].size,
        "operators": operators(content),
        "int4": sum(tensor.dtype == "int4" for tensor in graph.tensors.values()),
        "per_channel_dense": any(
            operator.kind == "FULLY_CONNECTED" and graph.tensors[operator.inputs[1]].axis is not None
            for operator in graph.operators
        ),
        "measured_arena": measured,
        "arena": arena(measured),
        "cmsis_nn": _cmsis_nn(graph, images[:1]),
        "golden": [
            {
                "input": codes[0],
                "logits": row,
                "label": int(label.flat[0]),
                "answer": int(np.argmax(row.ravel()[: len(delivery.handoff.label_names)])),  # as Largest() finds it
            }
            for codes, row, label in zip(input_codes(graph, images), logits, labels[chosen], strict=True)
        ],
        "compressed": _compressed(delivery),
        "decode_code": DECODE_CODE_BYTES,
        "tolerance": firmware.TOLERANCE,
        "sources": firmware.SOURCES,
    }
    values["firmware"] = delivery.verification["firmware"] = _firmware(values)
    names = SOURCES + (("model_compressed.cc",) if delivery.compressed else ())
    return {f"{FOLDER}/{name}": render(f"{FOLDER}/{name}.j2", **values) for name in names}


def num_golden(shape: tuple[int, ...]) -> int:
    """Number of test images of a shape that go into a bundle."""
    return max(1, min(MAX_GOLDEN_IMAGES, GOLDEN_BYTES // int(np.prod(shape))))


def golden(labels: np.ndarray, number: int) -> list[int]:
    """Which test images go into a bundle: the first of different classes, then the first of the others.

    Args:
      labels: [N] or [N, 1].
    """
    looked_at = labels.ravel()[:NUM_LOOKED_AT]
    _, firsts = np.unique(looked_at, return_index=True)
    others = np.setdiff1d(np.arange(len(looked_at)), firsts)
    return sorted([*np.sort(firsts), *others][:number])


def arena(measured: int) -> int:
    """Bytes to reserve if `measured` bytes were used."""
    return -int(-(measured * ARENA_MARGIN + ARENA_PREPARATION) // ARENA_STEP) * ARENA_STEP


def _cmsis_nn(graph: IntegerGraph, images: Images) -> dict[str, Any]:
    """Bytes of arena with CMSIS-NN's kernels, which read INT4 directly: as for int8, plus their own scratch."""
    plain = unpacked(graph)
    _, facts = infer(RUNTIME, plain, convert(plain, ""), images)
    return {"measured": facts["arena_bytes"], "arena": arena(facts["arena_bytes"]), "scratch": scratch(graph)}


def _firmware(values: dict) -> list[dict]:
    """Flash and RAM of the file, and of the one with lookup tables if there is one."""
    kinds, cmsis_nn, compressed = [o["kind"] for o in values["operators"]], values["cmsis_nn"], values["compressed"]
    more = {build: getattr(cmsis_nn["scratch"], build.scratch) if build.scratch else 0 for build in firmware.BUILDS}
    plain = [(cmsis_nn["arena"] if build.scratch else values["arena"]) + scratch for build, scratch in more.items()]
    found = firmware.rows("model.tflite", kinds, len(values["content"]), plain)
    if compressed:
        arenas = [compressed["arena"] + scratch for scratch in more.values()]
        found += firmware.rows("model.compressed.tflite", [*kinds, "DECODE"], compressed["size"], arenas)
    return found


def operators(content: bytes) -> list[dict]:
    """Each kind of operator in a file, in its order: "kind", the highest "version", and the resolver's "function"."""
    versions: dict[str, int] = collections.defaultdict(int)
    for code in schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)).operatorCodes:
        kind = BUILTINS[code.builtinCode]
        versions[kind] = max(versions[kind], code.version)
    return [{"kind": k, "version": v, "function": resolver_function(k)} for k, v in versions.items()]


def resolver_function(kind: str) -> str:
    """The function of TFLM's MicroMutableOpResolver that adds a builtin: "CONV_2D" -> "AddConv2D"."""
    return "Add" + kind.title().replace("_", "")


def _compressed(delivery: Delivery) -> dict | None:
    if delivery.compressed is None:
        return None
    row = delivery.verification["compressed"]
    return {
        "content": delivery.compressed,
        "size": len(delivery.compressed),
        "measured_arena": row["arena_bytes"],
        "arena": arena(row["arena_bytes"]),
        "num_images": row["num_images"],
    }
