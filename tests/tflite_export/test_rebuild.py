"""Every operator against the quantized Keras student, in steps of its output."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec
from tflite_export.convert import convert
from tflite_export.load import ExportError
from tflite_export.rebuild import rebuild
from tflite_export.verify import run_litert


def step_errors(handoff, graph) -> np.ndarray:
    """Distance in output steps between the graph's .tflite under LiteRT and the Keras student."""
    codes = run_litert(convert(graph, ""), handoff.test_images)
    assert codes.shape == handoff.student_logits.shape
    assert len(np.unique(codes)) > 8  # a constant output would agree with anything
    return np.abs(codes.astype(int) - handoff.student_logits)


def test_x(exported):
    errors = step_errors(exported.handoff, exported.graph)
    kinds = Counter(operator.kind for operator in exported.graph.operators)
    print(exported.name, errors.max(), np.mean(errors == 0), len(np.unique(exported.handoff.student_logits)), kinds == exported.expected_operators, kinds)
