"""The NumPy interpreter against each runtime: every operator, every tensor, bit for bit."""

import numpy as np
import pytest

from tflite_export.integer_reference import run
from tflite_export.read_back import read_back
from tflite_export.runtimes import RUNTIMES, absence, every_tensor, input_codes
from tflite_export.verification import arithmetic_of

NUM_IMAGES = 100


def random_images(graph) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (NUM_IMAGES, *graph.tensors[graph.input].shape[1:]), np.uint8)


@pytest.fixture(params=RUNTIMES)
def runtime(request) -> str:
    if reason := absence(request.param):
        pytest.skip(reason)
    return request.param


def test_every_tensor_of_every_operator_is_the_runtimes(exported, runtime, contents):
    for content in contents(exported.graph, runtime):
        graph = read_back(content)
        images = random_images(graph)
        asked = every_tensor(runtime, graph, content, images)
        ours = run(graph, np.concatenate(list(input_codes(graph, images))), RUNTIMES[runtime].arithmetic)
        differing = {name: int(np.sum(codes != ours[name])) for name, codes in asked.items()}
        assert differing == dict.fromkeys(asked, 0)
        assert any(len(np.unique(codes)) > 2 for codes in asked.values())


def test_keras_student_in_integers_predicts_every_tensor(exported, runtime, contents):
    """The integer-faithful mode knows of no file; the file knows of no Keras."""
    for content in contents(exported.graph, runtime):
        graph = read_back(content)
        predicted = exported.handoff.integer_codes[arithmetic_of(runtime, graph)]
        images = exported.handoff.test_images[: len(next(iter(predicted.values())))]
        ours = run(graph, np.concatenate(list(input_codes(graph, images))), RUNTIMES[runtime].arithmetic)
        differing = {name: int(np.sum(codes != ours[name])) for name, codes in predicted.items() if name in ours}
        assert differing == dict.fromkeys(exported.handoff.tensor_params, 0) | dict.fromkeys(differing, 0)
