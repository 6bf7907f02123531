"""export/phone/: what Kotlin, Swift and the README say of shapes and scales is what LiteRT says of the file."""

import re

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from qkd_tf.contract import pictures
from qkd_tf.contract.pictures import Size
from qkd_tf.data.pixels import resize, squash
from qkd_tf.experiment import DataSpec
from tests.tflite_export.bundles.verifications import VERIFICATION
from tflite_export.bundles import phone_bundle
from tflite_export.bundles.bundle import Delivery
from tflite_export.flatbuffer.convert import convert
from tflite_export.rebuilding.rebuild import rebuild

CONSTANT = re.compile(r"(?:const val|static let) (\w+)(?:: Float)? = (-?[\d.e-]+)")


def sources(
    handoff, input_type: str, image_size: Size, squashes: bool = False, is_signal: bool = False
) -> tuple[dict[str, str], bytes]:
    content = convert(rebuild(handoff, input_type), "")
    files = phone_bundle.files(
        Delivery("run", content, None, handoff, VERIFICATION, image_size, squashes, is_signal=is_signal)
    )
    return {name.removeprefix("phone/"): text.decode() for name, text in files.items()}, content


@pytest.mark.parametrize("input_type", ["uint8", "int8"])
@pytest.mark.parametrize("name", ["Classifier.kt", "Classifier.swift"])
def test_constants_are_those_of_the_file(residual, name, input_type):
    texts, content = sources(residual.handoff, input_type, 0)
    found = {key.replace("_", "").lower(): float(value) for key, value in CONSTANT.findall(texts[name])}
    interpreter = Interpreter(model_content=content)
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    for what, detail in (("input", entry), ("output", output)):
        scale, zero_point = detail["quantization"]
        assert np.float32(found[f"{what}scale"]) == np.float32(scale)
        assert found[f"{what}zeropoint"] == zero_point
    assert [found[key] for key in ("height", "width", "channels")] == entry["shape"][1:].tolist()
    assert found["numoutputs"] == np.prod(output["shape"])
    assert found.get("pixeloffset", 0) == (128 if input_type == "int8" else 0)


@pytest.mark.parametrize("input_type, low, high", [("uint8", "0", "255"), ("int8", "-128", "127")])
@pytest.mark.parametrize("name", phone_bundle.SOURCES)
def test_features_are_put_on_the_steps_of_the_file(residual, name, input_type, low, high):
    text = sources(residual.handoff, input_type, 0, is_signal=True)[0][name]
    between = {"README.md": f"clipped to {low} … {high}", "Classifier.kt": f"coerceIn({low}f, {high}f)",
               "Classifier.swift": f"min(max(step, {low}), {high})"}  # fmt: skip
    assert between[name] in text
    assert not re.search("bitmap|cgimage|colour|camera", text, re.IGNORECASE)
    found = {key.replace("_", "").lower(): float(value) for key, value in CONSTANT.findall(text)}
    assert name == "README.md" or found["numinputs"] == np.prod(residual.handoff.test_images.shape[1:])


def test_a_size_that_is_not_square_is_covered():
    """Of 96 x 64 it is 110 x 73."""
    assert (room := pictures.room((96, 64))) == (110, 73) and pictures.room(96) == (110, 110)
    assert all(side == pictures.resized_side(of) for side, of in zip(room, (96, 64), strict=True))


@pytest.mark.parametrize("name", phone_bundle.SOURCES)
def test_resizing_is_told_where_training_resized(residual, name):
    plain, _ = sources(residual.handoff, "uint8", 0)
    resized, _ = sources(residual.handoff, "uint8", 96)
    shorter_side = re.compile(r"\b110\b")
    assert shorter_side.search(resized[name]) and not shorter_side.search(plain[name])
    squashed = sources(residual.handoff, "uint8", 96, squashes=True)[0][name]
    assert not shorter_side.search(squashed) and not re.search("shorter side", squashed, re.IGNORECASE)
    assert "without keeping the aspect ratio" in squashed
    skips = "bilinear step from a large frame skips most of its pixels"
    if name == "README.md":
        assert skips in plain[name] and skips in resized[name] and skips not in squashed


@pytest.mark.parametrize("input_type", ["uint8", "int8"])
@pytest.mark.parametrize("image_size, squashes", [(0, False), (8, False), (8, True)])
def test_python_that_is_shown_gives_the_probabilities_of_the_file(
    residual, tmp_path, monkeypatch, capsys, input_type, image_size, squashes
):
    texts, content = sources(residual.handoff, input_type, image_size, squashes)
    (code,) = re.findall("```python\n(.*?)```", texts["README.md"], re.DOTALL)
    shape = (8, 8, 3) if not image_size else (21, 14, 3)
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "picture.jpg").write_bytes(tf.io.encode_png(picture).numpy())
    (tmp_path / "model.tflite").write_bytes(content)
    (tmp_path / "labels.txt").write_text("\n".join(residual.handoff.label_names))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    told = re.findall(r"\('?(.*?)'?, (?:np.float64\()?([\d.]+)\)?\)", capsys.readouterr().out)
    spec = DataSpec("digits", image_size=image_size, resize="squash" if squashes else "crop")
    pixels = pixels_of(spec, picture)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (given,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    steps = pixels.astype(int) - (128 if input_type == "int8" else 0)
    interpreter.set_tensor(given["index"], steps[np.newaxis].astype(given["dtype"]))
    interpreter.invoke()
    scale, zero_point = output["quantization"]
    powers = np.exp(scale * (interpreter.get_tensor(output["index"])[0].astype(float) - zero_point))
    assert [name for name, _ in told] == list(residual.handoff.label_names)
    np.testing.assert_allclose([float(share) for _, share in told], powers / powers.sum(), atol=6e-4)


def pixels_of(spec, picture):
    """A picture as the network sees it in evaluation."""
    if not spec.size:
        return picture
    if spec.resize == "squash":
        return squash(picture, spec.image_size).numpy()
    return tf.image.resize_with_crop_or_pad(resize(picture, spec.image_size), *spec.size).numpy()


@pytest.mark.parametrize("name", ["Classifier.kt", "Classifier.swift"])
@pytest.mark.parametrize(
    "image_size, squashes, is_signal",
    [(0, False, False), (224, False, False), ((96, 64), False, False), (224, True, False), (0, False, True)],
)
def test_brackets_close(residual, name, image_size, squashes, is_signal):
    text = re.sub(r'"[^"\n]*"|//.*', "", sources(residual.handoff, "uint8", image_size, squashes, is_signal)[0][name])
    open_brackets = []
    for bracket in re.findall(r"[()\[\]{}]", text):
        if bracket in "([{":
            open_brackets.append(bracket)
        else:
            assert open_brackets.pop() + bracket in ("()", "[]", "{}")
    assert not open_brackets
