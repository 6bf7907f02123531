import json
import platform
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from tf_keras import layers

from qkd_tf.contract.grid import dequantize, load_params, quantize
from qkd_tf.contract.runtime_arithmetic import ARITHMETICS, int4_row
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization, QuantizationSpec, TargetSpec
from qkd_tf.models import zoo
from qkd_tf.outcome import handoff
from qkd_tf.process.cpu import ARM64
from qkd_tf.quantization.integer_steps import put_on_integer_steps
from qkd_tf.quantization.integer_student import IntegerStudent
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage import archive, durable
from qkd_tf.storage.run_folder import RunFolder
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.load import load_handoff
from tflite_export.proof.asking import arithmetic_of
from tflite_export.rebuilding.rebuild import rebuild

INT4_ROW = int4_row(platform.machine().lower() in ARM64)
FRESH_PROCESS = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tf_keras
model = tf_keras.models.load_model(sys.argv[1] + "/student.keras", safe_mode=True)
assert not [name for name in sys.modules if name.startswith(("qkd_tf", "tensorflow_model_optimization"))]
np.save(sys.argv[2], model.predict_on_batch(np.load(sys.argv[1] + "/test_images.npy")))
print(" ".join(type(layer).__module__.split(".")[0] for layer in model.layers))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_quantized_student, make_splits):
    """(folder, student, splits, accuracy) of a handoff."""
    run_folder = RunFolder(str(tmp_path_factory.mktemp("handoff") / "run"), ["--student=tiny"])
    run_folder.claim()
    student, splits = make_quantized_student(), make_splits()
    accuracy = handoff.write(student, splits, run_folder).accuracy
    return run_folder.handoff, student, splits, accuracy


@pytest.fixture(scope="module")
def kernels(written):
    """Kernels of student.keras as a fresh reader finds them, by layer."""
    import tf_keras

    model = tf_keras.models.load_model(written[0] / "student.keras")
    return {layer.name: layer.get_weights()[0] for layer in model.layers if layer.name in written[1].weights}


def test_every_file_of_the_contract_is_there(written):
    assert {file.name for file in written[0].iterdir()} == {
        "student.keras",
        "weights.npz",
        "weight_params.json",
        "tensor_params.json",
        "labels.txt",
        "test_images.npy",
        "test_labels.npy",
        "student_logits.npy",
        "integer_logits.npz",
        "integer_codes.npz",
        "manifest.json",
    }


def test_manifest_holds_the_sums_of_all_files(written):
    durable.check(written[0])
    assert set(durable.read_json(written[0] / "manifest.json")["files"]) == {
        file.name for file in written[0].iterdir() if file.name != "manifest.json"
    }


def test_handoff_that_cannot_be_finished_leaves_that_of_before(
    tmp_path, monkeypatch, make_quantized_student, make_splits
):
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    folder.handoff.mkdir()
    (folder.handoff / "labels.txt").write_text("of before")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "save_npz", full)
    with pytest.raises(OSError, match="No space"):
        handoff.write(make_quantized_student(), make_splits(), folder)
    assert [file.name for file in folder.handoff.iterdir()] == ["labels.txt"]
    assert not list(folder.path.glob("*.part"))


@pytest.mark.slow
def test_student_loads_in_a_process_that_knows_nothing_of_the_package(written, tmp_path):
    folder, student, *_ = written
    command = [sys.executable, "-c", FRESH_PROCESS, str(folder), str(tmp_path / "logits.npy")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"tf_keras"}
    on_grid = student.float_copy()
    for name, quantized in student.weights.items():
        params = quantized.params()
        rounded = dequantize(quantize(quantized.kernel.numpy(), params), params)
        on_grid.get_layer(name).set_weights([rounded, *on_grid.get_layer(name).get_weights()[1:]])
    expected = on_grid.predict_on_batch(np.load(folder / "test_images.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


def test_kernels_are_scale_times_integer_to_the_last_bit(written, kernels):
    folder, student, *_ = written
    params = load_params(folder / "weight_params.json")
    with np.load(folder / "weights.npz", allow_pickle=False) as integers:
        assert set(integers.files) == set(params) == set(kernels) == set(student.weights)
        for name, kernel in kernels.items():
            codes = integers[name]
            assert codes.dtype == np.int8 and codes.shape == kernel.shape
            assert params[name].zero_point == 0
            np.testing.assert_array_equal(np.float32(params[name].scale) * codes.astype(np.float32), kernel)


def test_integers_are_the_nearest_to_the_latent_weights(written):
    folder, student, *_ = written
    params = load_params(folder / "weight_params.json")
    with np.load(folder / "weights.npz") as integers:
        for name, tensor in student.weights.items():
            grid = params[name].grid
            nearest = np.clip(np.round(tensor.kernel.numpy() / tensor.interval.numpy()), grid.qmin, grid.qmax)
            np.testing.assert_array_equal(integers[name], nearest.reshape(integers[name].shape))
            assert len(np.unique(integers[name])) > 1


def test_weights_have_the_bits_that_were_asked_for(written):
    rows = json.loads((written[0] / "weight_params.json").read_text())
    assert {name: row["grid"]["num_bits"] for name, row in rows.items()} == {
        "stem": 8,
        "depthwise": 3,
        "linear": 3,
        "logits": 8,
    }


def test_tensors_have_the_parameters_of_the_trained_intervals(written):
    folder, student, *_ = written
    params = load_params(folder / "tensor_params.json")
    assert set(params) == {"normalization", *student.outputs}
    for name, tensor in student.outputs.items():
        assert np.float32(params[name].scale) == tensor.interval.numpy()
        assert params[name].stored_max == 127
    assert (params["normalization"].scale, params["normalization"].grid.qmin) == (1 / 64, -128)


def test_logits_codes_are_those_of_the_quantized_student(written):
    folder, student, *_ = written
    codes, params = np.load(folder / "student_logits.npy"), load_params(folder / "tensor_params.json")["logits"]
    logits = student.model.predict_on_batch(np.load(folder / "test_images.npy"))
    assert codes.dtype == np.int8 and codes.shape == logits.shape
    assert len(np.unique(codes)) > 10
    restored = (codes.astype(np.float32) - params.zero_point) * np.float32(params.scale)
    np.testing.assert_allclose(restored, logits, atol=1e-6)  # the logits lie on their grid: nothing was lost


def test_integers_are_predicted_for_every_runtime_and_tensor(written):
    """In the order of the test split; the integers of the first images end in the same logits."""
    folder, student, *_ = written
    tensors = {"normalization", *student.outputs}
    with np.load(folder / "integer_logits.npz") as logits, np.load(folder / "integer_codes.npz") as codes:
        assert set(logits.files) == set(ARITHMETICS)
        assert set(codes.files) >= {f"{runtime}/{name}" for runtime in ARITHMETICS for name in tensors}
        for runtime in ARITHMETICS:
            assert logits[runtime].dtype == np.int8 and logits[runtime].shape == (12, 5)
            first = codes[f"{runtime}/logits"]
            np.testing.assert_array_equal(first, logits[runtime][: len(first)])
        # XNNPACK rounds as training does; the others twice, which shows at 3 bits
        steps = {r: np.abs(logits[r].astype(int) - np.load(folder / "student_logits.npy")) for r in ARITHMETICS}
        assert steps["litert"].max() == 0
        assert 0 < steps["tflm"].max() <= 4 and np.mean(steps["tflm"] == 0) > 0.3


def test_test_split_is_written_whole_and_in_order(written):
    folder, _, splits, _ = written
    images = np.load(folder / "test_images.npy", allow_pickle=False)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.concatenate([i for i, _ in splits.test.as_numpy_iterator()]))
    labels = np.load(folder / "test_labels.npy", allow_pickle=False)
    np.testing.assert_array_equal(labels, np.concatenate([y for _, y in splits.test.as_numpy_iterator()]))
    assert (folder / "labels.txt").read_text().splitlines() == splits.label_names


def test_top1_that_is_reported_is_that_of_the_codes(written):
    """In the integers of the judge, and beside it in floating point."""
    folder, *_, accuracy = written
    labels = np.load(folder / "test_labels.npy")

    def top1(codes):
        return pytest.approx(100 * np.mean(codes.argmax(-1) == labels[: len(codes)]))

    assert accuracy.real_numbers_top1 == top1(np.load(folder / "student_logits.npy")) == accuracy.paired["student_top1"]
    with np.load(folder / "integer_logits.npz") as logits:
        assert accuracy.top1 == top1(logits["litert"]) == accuracy.paired["top1"]
        assert {row: found.top1 for row, found in accuracy.integers.items()} == {r: top1(logits[r]) for r in logits}


@pytest.mark.slow
@pytest.mark.parametrize("storage, judge", [("int8", "litert"), ("int4", "litert"), ("int4_all", INT4_ROW)])
def test_judge_gets_the_whole_test_split_and_others_their_pixels(
    tmp_path, monkeypatch, written, make_quantized_student, make_splits, storage, judge, capsys
):
    """Beyond the first images by the graph, which is held against the definition there, and under one bar."""
    monkeypatch.setattr(handoff, "NUM_CODE_IMAGES", 3)
    monkeypatch.setattr(handoff, "INTEGER_PIXELS", 5 * 8 * 8)
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    accuracy = handoff.write(
        make_quantized_student(), make_splits(), folder, TargetSpec(weight_storage=storage)
    ).accuracy
    exported = store(rebuild(load_handoff(folder.handoff), "uint8"), storage, TARGETS["phone"])
    assert accuracy.judge == judge == arithmetic_of("litert", exported)
    with np.load(folder.handoff / "integer_logits.npz") as found, np.load(written[0] / "integer_logits.npz") as all_:
        assert {row: len(found[row]) for row in found} == {row: 12 if row == judge else 5 for row in ARITHMETICS}
        for row in found:
            np.testing.assert_array_equal(found[row], all_[row][: len(found[row])])
    assert {row: top1.num_images for row, top1 in accuracy.integers.items()} == {
        row: 12 if row == judge else 5 for row in ARITHMETICS
    }
    states = re.findall(r"computing .+", capsys.readouterr().err)
    assert {state.partition(":")[0] for state in states} == {"computing the file's integers for every runtime"}
    assert re.search(r"100%.* 12/12 ", states[-1])


@pytest.mark.slow
def test_a_device_that_rounds_twice_has_lower_biases_and_equal_kernels(tmp_path, make_quantized_student, make_splits):
    folders = {
        rounds_twice: RunFolder(str(tmp_path / f"{rounds_twice}"), ["--student=tiny"]) for rounds_twice in (0, 1)
    }
    weights = {}
    for rounds_twice, folder in folders.items():
        folder.claim()
        device = TargetSpec(target="microcontroller" if rounds_twice else "phone")
        handed_over = handoff.write(make_quantized_student(), make_splits(), folder, device)
        assert handed_over.accuracy.judge == ("tflm" if rounds_twice else "litert")
        weights[rounds_twice] = {variable.name: variable.numpy() for variable in handed_over.student.plain.variables}
    other = {name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])}
    assert other and all("beta" in name or "bias" in name for name in other)
    assert all(np.all(weights[1][name] <= weights[0][name]) for name in other)


@pytest.mark.slow
def test_graph_that_is_not_exact_is_told_and_no_handoff_is_written(
    tmp_path, monkeypatch, make_quantized_student, make_splits
):
    monkeypatch.setattr(handoff, "NUM_CODE_IMAGES", 3)
    exact = handoff.IntegerGraph.logits
    monkeypatch.setattr(handoff.IntegerGraph, "logits", lambda *args: (logits ^ 1 for logits in exact(*args)))
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    with pytest.raises(ExperimentError, match="in the arithmetic of litert the student's graph has other logits"):
        handoff.write(make_quantized_student(), make_splits(), folder)
    assert not folder.handoff.exists()


def test_student_that_no_file_holds_is_told_before_anything_is_predicted_or_written(
    tmp_path, make_quantized_student, make_splits
):
    student = make_quantized_student()
    student.outputs["linear_bn"].interval.assign(1e-12)
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    with pytest.raises(
        ExperimentError, match="^no file can hold the student: layer linear_bn: one step of its inputs is"
    ):
        handoff.write(student, make_splits(), folder)
    assert not folder.handoff.exists()


@given(st.integers(1, 40_000))
def test_codes_have_a_bound_of_bytes_and_only_a_single_image_may_exceed_it(written, max_bytes):
    _, student, *_ = written
    of_image = handoff.code_bytes_of_image(student)
    with mock.patch.object(handoff, "MAX_CODE_BYTES", max_bytes):
        number = handoff.num_code_images(student)
    assert 1 <= number <= handoff.NUM_CODE_IMAGES
    assert number == 1 or number * of_image <= max_bytes
    assert number == handoff.NUM_CODE_IMAGES or (number + 1) * of_image > max_bytes


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [1, 5, 12])
def test_codes_that_are_written_have_the_bytes_that_were_computed(
    tmp_path, monkeypatch, make_quantized_student, make_splits, num_images
):
    student = make_quantized_student()
    of_image = handoff.code_bytes_of_image(student)
    monkeypatch.setattr(handoff, "MAX_CODE_BYTES", of_image * num_images)
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    handoff.write(student, make_splits(), folder)
    codes = archive.load_npz(folder.handoff / "integer_codes.npz")
    assert {len(values) for values in codes.values()} == {num_images}
    assert sum(values.nbytes for values in codes.values()) == of_image * num_images


@pytest.mark.parametrize("num_images, num_threads", [(0, 1), (1, 4), (5, 2)])
def test_threads_and_their_images_change_no_integer(monkeypatch, make_quantized_student, num_images, num_threads):
    student = make_quantized_student()
    put_on_integer_steps(student)
    integers = IntegerStudent(student)
    images = np.random.default_rng(0).integers(0, 256, (12, *integers.image_shape)).astype(np.uint8)
    expected = integers.predict_each(images, ARITHMETICS.values())
    of_image = 8 * integers.largest_tensor
    monkeypatch.setattr(handoff, "THREAD_BYTES", of_image * num_images)
    monkeypatch.setattr(handoff, "THREADS_BYTES", of_image * max(num_images, 1) * num_threads)
    found = handoff._first_codes(integers, images)
    for row, tensors in zip(ARITHMETICS, expected, strict=True):
        assert found[row].keys() == tensors.keys()
        for name, values in tensors.items():
            np.testing.assert_array_equal(found[row][name], values)


@pytest.mark.slow
@pytest.mark.parametrize("name, num_images", [("resnet56", 32), ("mobilenet_v2_1.0_cifar", 25)])
def test_32_images_are_handed_over_or_as_many_as_have_256_mib(name, num_images):
    model = zoo.build(NetworkSpec(name, PixelNormalization((128.0,), (64.0,))), (32, 32, 3), 10)
    assert handoff.num_code_images(quantize_student(model, QuantizationSpec())) == num_images


def huge_student(side):
    """A few kernels, and tensors of side x side x 64."""
    pixels = tf_keras.Input((side, side, 3), name="pixels")
    x = layers.Conv2D(64, 1, activation="relu")(layers.Rescaling(1 / 64, -2.0)(pixels))
    logits = layers.Dense(2, name="logits")(layers.GlobalAveragePooling2D()(x))
    return quantize_student(tf_keras.Model(pixels, logits), QuantizationSpec())


def test_what_could_never_be_read_is_refused_in_a_line_and_all_else_is_read():
    """One image of 3,000 x 3,000 x 64 has more than 320 MiB, and is handed over alone; of 5,000 it is refused."""
    large = huge_student(3_000)
    assert handoff.num_code_images(large) == 1 and handoff.code_bytes_of_image(large) > handoff.MAX_CODE_BYTES
    handoff.require_readable(large, 10_000)
    with pytest.raises(ExperimentError, match=r"one image, in each .* 10,[0-9,]+ bytes .* 4,294,967,296 .*image_size"):
        handoff.require_readable(huge_student(5_000))


@given(st.integers(1, 40_000))
def test_handoff_that_is_taken_before_the_training_is_read_after_it(written, max_bytes):
    folder, student, *_ = written
    with mock.patch.multiple(archive, MAX_BYTES=max_bytes + archive.HEADERS):
        try:
            handoff.require_readable(student, 12)
        except ExperimentError:
            return
        for name in ("integer_codes.npz", "integer_logits.npz"):
            archive.load_npz(folder / name)


def test_logits_of_more_images_than_can_be_read_are_refused(make_quantized_student):
    student = make_quantized_student()
    handoff.require_readable(student, 10**6)
    with pytest.raises(ExperimentError, match="the logits, in each arithmetic .* use fewer test images"):
        handoff.require_readable(student, 10**9)


def test_float_student_follows_the_quantized_ones_biases(written):
    _, student, *_ = written
    for name in ("stem_bn", "logits"):
        plain = student.plain.get_layer(name)
        variable = plain.beta if name == "stem_bn" else plain.bias
        (twin,) = [latent for own, latent in student._twins if own is variable]
        np.testing.assert_array_equal(variable.numpy(), twin.numpy())


@pytest.mark.slow
def test_writing_again_replaces_the_files(tmp_path, make_quantized_student, make_splits):
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    handoff.write(make_quantized_student(0), make_splits(), folder)
    student = make_quantized_student(1)
    handoff.write(student, make_splits(), folder)
    with np.load(folder.handoff / "weights.npz") as integers:
        scale = load_params(folder.handoff / "weight_params.json")["linear"].scale
        kernel = tf_keras.models.load_model(folder.handoff / "student.keras").get_layer("linear").kernel.numpy()
        np.testing.assert_array_equal(integers["linear"] * np.float32(scale), kernel)
        assert np.any(kernel != student.plain.get_layer("linear").kernel.numpy()), "the student keeps what it learned"
