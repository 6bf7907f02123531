import json

import numpy as np
import pytest

from qkd_tf.contract.grid import activation_params, unsigned_grid
from qkd_tf.outcome import diagnosis, handoff
from qkd_tf.outcome.diagnosis import TensorError
from qkd_tf.process.portions import values_of_image
from qkd_tf.storage.run_folder import RunFolder

PARAMS = activation_params(unsigned_grid(2), 1.0)  # 0, 1, 2, 3


def error(quantized, reference):
    found = TensorError(PARAMS)
    for part in np.array_split(np.arange(len(reference)), 2):
        found.add(np.take(quantized, part), np.take(reference, part))
    return found.row()


def test_error_of_a_tensor_that_can_be_computed_by_hand():
    row = error([1.0, 2.0, 3.0, 1.0], [1.0, 2.0, 4.0, -0.4])
    assert row["sqnr"] == pytest.approx(10 * np.log10(21.16 / 2.96))
    assert row["own_sqnr"] == pytest.approx(10 * np.log10(21.16 / 1.16))  # 3 for 4, 0 for -0.4
    assert row["cosine"] == pytest.approx(16.6 / np.sqrt(15 * 21.16))
    assert (row["lowest"], row["highest"], row["clipped"]) == (-0.4, 4.0, 25.0)


@pytest.mark.parametrize(
    "quantized, reference, sqnr, cosine",
    [
        ([1.0, 2.0], [1.0, 2.0], None, 1.0),  # no error at all
        ([0.0, 0.0], [0.0, 0.0], None, None),
        ([0.0, 0.0], [0.3, 0.3], 0.0, None),  # all of it was rounded away
        ([1.0, 0.0], [0.0, 0.0], None, None),
    ],
)
def test_error_where_a_share_has_no_meaning(quantized, reference, sqnr, cosine):
    row = error(quantized, reference)
    assert (row["sqnr"], row["cosine"]) == (pytest.approx(sqnr), pytest.approx(cosine))


def write(tmp_path, student, splits, origin):
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    reference = diagnosis.Reference(student, origin)
    handed_over = handoff.write(student, splits, folder, onlooker=reference.look)
    facts = diagnosis.write(handed_over, reference, folder)
    return facts, json.loads(folder.diagnosis.read_text())


@pytest.mark.slow
def test_every_tensor_has_its_error_against_both_references(tmp_path, make_quantized_student, make_splits):
    student, splits = make_quantized_student(), make_splits()
    full_precision = student.plain.get_weights()
    pixels = next(iter(splits.test.unbatch().batch(12)))[0]
    logits = student.plain.predict_on_batch(pixels)
    student.weights["linear"].kernel.assign_add(0.05 * np.ones(student.weights["linear"].kernel.shape))  # "training"
    facts, content = write(tmp_path, student, splits, "trained")

    labels = np.concatenate([labels for _, labels in splits.test.as_numpy_iterator()])
    assert content["full_precision"]["classes"] == logits.argmax(-1).tolist()
    assert facts == {"origin": "trained", "test_top1": pytest.approx(100 * np.mean(logits.argmax(-1) == labels))}
    rows = {(row["layer"], row["tensor"]): row for row in content["tensors"]}
    assert [(layer, tensor) for layer, tensor, *_ in student.coverage()[1:]] == list(rows)
    linear, params = student.weights["linear"], student.weights["linear"].params()
    latent = linear.kernel.numpy()
    rounded = np.clip(np.round(latent / params.scale), params.grid.qmin, params.grid.qmax) * params.scale
    (before,) = [w for w in full_precision if w.shape == latent.shape and np.allclose(w, latent - 0.05, atol=1e-6)]
    for key, reference in (("unrounded", latent), ("full_precision", before)):
        expected = 10 * np.log10(np.sum(reference**2) / np.sum((rounded - reference) ** 2))
        assert rows["linear", "kernel"][key]["sqnr"] == pytest.approx(expected, rel=1e-4)
    # The logits, by a second way: the student as it is, and its float twin with the latent weights.
    student.copy_weights_to_plain()
    q, r = (model.predict_on_batch(pixels).astype(np.float64) for model in (student.model, student.plain))
    expected = 10 * np.log10(np.sum(r**2) / np.sum((q - r) ** 2))
    assert rows["logits", "output"]["unrounded"]["sqnr"] == pytest.approx(expected, rel=1e-3)
    assert content["num_images"] == 12
    for row in content["tensors"]:  # a kernel's error is its own, an activation's also that of what it was made of
        unrounded = row["unrounded"]
        if row["tensor"] == "kernel":
            assert unrounded["own_sqnr"] == unrounded["sqnr"]
    assert rows["logits", "output"]["unrounded"]["own_sqnr"] > rows["logits", "output"]["unrounded"]["sqnr"] + 3


@pytest.mark.slow
@pytest.mark.parametrize("num_images, sizes", [(0, [1] * 7), (2, [2, 2, 2, 1]), (100, [4, 3])])
def test_activations_that_are_held_have_a_bound_of_bytes_which_changes_no_error(
    monkeypatch, make_quantized_student, num_images, sizes
):
    student = make_quantized_student()
    images = np.random.default_rng(0).integers(0, 256, (7, *student.plain.input_shape[1:])).astype(np.float32)
    references = {"unrounded": student.plain.get_weights()}
    expected = diagnosis.measure(student, images, references)
    held = 2 * 4 * values_of_image(student.plain.get_layer(name) for name in student.outputs)
    monkeypatch.setattr(diagnosis, "HELD_BYTES", held * num_images)
    batches, portions = [], diagnosis.portions
    monkeypatch.setattr(diagnosis, "portions", lambda *given: batches.extend(portions(*given)) or batches)
    found = diagnosis.measure(student, images, references)
    assert [len(batch) for batch in batches] == sizes
    for row, before in zip(found, expected, strict=True):
        assert (row["layer"], row["tensor"]) == (before["layer"], before["tensor"])
        assert row["unrounded"] == pytest.approx(before["unrounded"], rel=1e-5)


@pytest.mark.slow
def test_more_bits_have_less_error(tmp_path, make_quantized_student, make_splits):
    """The first and last layer have 8 bits, the others 3."""
    _, content = write(tmp_path, make_quantized_student(), make_splits(), "weights")
    sqnr = {r["layer"]: r["unrounded"]["sqnr"] for r in content["tensors"] if r["tensor"] == "kernel"}
    assert min(sqnr["stem"], sqnr["logits"]) > max(sqnr["depthwise"], sqnr["linear"]) + 10


@pytest.mark.slow
def test_random_start_is_no_full_precision(tmp_path, make_quantized_student, make_splits):
    facts, content = write(tmp_path, make_quantized_student(), make_splits(), "random")
    assert facts == {"origin": "random", "test_top1": None}
    assert content["full_precision"]["classes"] is None
    assert all("full_precision" not in row for row in content["tensors"])
