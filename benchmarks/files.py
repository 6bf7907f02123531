"""The exported file: seconds of each stage of the export, and its latency against the stock int8 file."""

import statistics
import time

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from benchmarks import subjects
from benchmarks.turns import measure, ratio
from qkd_tf.contract.targets import TARGETS
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import delegated_operators
from tflite_export.load import load_handoff
from tflite_export.proof.comparison import refusals
from tflite_export.rebuilding.rebuild import rebuild

NUM_TURNS = 9
CALLS_A_TURN = 60


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

    sessions = {"ours": Session(content), "stock": Session(_stock(model, image_shape))}
    medians = measure({kind: session.invoke for kind, session in sessions.items()}, NUM_TURNS, CALLS_A_TURN)
    return {
        "latency/stock": ratio(medians, "ours", "stock"),
        **{f"{kind}_ms": 1000 * statistics.median(values) for kind, values in medians.items()},
        **{f"{kind}_delegated_percent": session.delegated for kind, session in sessions.items()},
        **{f"{kind}_bytes": session.num_bytes for kind, session in sessions.items()},
        "export_seconds": export_seconds,
        **{f"{stage}_seconds": value for stage, value in seconds.items()},
    }


class Session:
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
