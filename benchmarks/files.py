"""The exported file: seconds of each stage of the export, and its latency against the stock int8 file."""

import statistics
import time

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from benchmarks import subjects
from benchmarks.turns import best, measure, ratio
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import RUNTIMES, delegated_operators
from tflite_export.load import load_handoff
from tflite_export.proof.asking import ask
from tflite_export.proof.comparison import refusals
from tflite_export.proof.verdict import equal_share
from tflite_export.rebuilding.rebuild import rebuild

NUM_TURNS = 9
CALLS_A_TURN = 60
STORAGES = ("int8", "int4", "int4_all")
STORAGE_TURNS, STORAGE_CALLS = 60, 4


def export_and_latency(name: str, image_shape, num_classes: int) -> dict[str, float]:
    """Seconds by stage, milliseconds of both files on one thread of LiteRT, and what XNNPACK takes of each.

    Both files take int8 pixels: XNNPACK does not take the QUANTIZE that uint8 pixels begin with, of either.
    """
    seconds: dict[str, float] = {}

    def timed(stage, function, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds[stage] = time.perf_counter() - start
        return result

    model, handoff_dir = timed("build_calibrate_and_hand_off", subjects.write_handoff, name, image_shape, num_classes)
    handoff = timed("load", load_handoff, handoff_dir)
    graph = timed("rebuild", rebuild, handoff, "int8")
    graph = timed("store", store, graph, "auto", TARGETS["phone"])
    content = timed("convert", convert, graph, "")
    found = timed("read_back", read_back, content)
    failures = timed("compare", refusals, graph, found, handoff)
    if failures:
        raise RuntimeError("; ".join(failures))
    export_seconds = sum(seconds[stage] for stage in ("load", "rebuild", "store", "convert", "read_back", "compare"))

    sessions = {"ours": _Session(content), "stock": _Session(_stock(model, image_shape))}
    medians = measure({kind: session.invoke for kind, session in sessions.items()}, NUM_TURNS, CALLS_A_TURN)
    return {
        "latency/stock": ratio(medians, "ours", "stock"),
        **{f"{kind}_ms": 1000 * statistics.median(values) for kind, values in medians.items()},
        **{f"{kind}_delegated_percent": session.delegated for kind, session in sessions.items()},
        **{f"{kind}_bytes": session.num_bytes for kind, session in sessions.items()},
        "export_seconds": export_seconds,
        **{f"{stage}_seconds": value for stage, value in seconds.items()},
    }


def storages(name: str, image_shape, num_classes: int) -> dict[str, float]:
    """A W4A4 student, its last layer too, in each storage of phones: bytes, best milliseconds, integers as predicted.

    One thread of LiteRT, in turns, and ratios of the best times: other work on the machine only adds to a time.
    """
    spec = QuantizationSpec(weight_bits=4, activation_bits=4, last_layer_bits=4)
    _, folder = subjects.write_handoff(name, image_shape, num_classes, spec)
    handoff = load_handoff(folder)
    graph = rebuild(handoff, "int8")
    files = {storage: convert(store(graph, storage, TARGETS["phone"]), "") for storage in STORAGES}
    sessions = {storage: _Session(content) for storage, content in files.items()}
    seconds = best({s: session.invoke for s, session in sessions.items()}, STORAGE_TURNS, STORAGE_CALLS)
    found = read_back(files["int4"])
    predicted = {runtime: equal_share(ask(runtime, files["int4"], found, handoff)[0]) for runtime in RUNTIMES}
    return {
        "bytes: int4/int8": len(files["int4"]) / len(files["int8"]),
        "latency: int4/int8": seconds["int4"] / seconds["int8"],
        "latency: int4_all/int8": seconds["int4_all"] / seconds["int8"],
        **{f"int4 as predicted on {runtime}, percent": share for runtime, share in predicted.items()},
        **{f"{storage}_bytes": len(content) for storage, content in files.items()},
        **{f"{storage}_best_ms": 1000 * value for storage, value in seconds.items()},
        **{f"{storage}_delegated_percent": session.delegated for storage, session in sessions.items()},
    }


class _Session:
    def __init__(self, content: bytes):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        (detail,) = interpreter.get_input_details()
        rng = np.random.default_rng(0)
        interpreter.set_tensor(detail["index"], rng.integers(-128, 128, detail["shape"], np.int8))
        self.invoke = interpreter.invoke
        self.delegated = delegated_operators(interpreter)
        self.num_bytes = len(content)


def _stock(model, image_shape) -> bytes:
    """Post-training quantization to int8 by TensorFlow's converter, of the same float network."""
    rng = np.random.default_rng(0)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.integers(0, 256, (1, *image_shape)).astype(np.float32)] for _ in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()
