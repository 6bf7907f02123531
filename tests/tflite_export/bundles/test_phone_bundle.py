"""export/phone/: what Kotlin, Swift and the README say of shapes and scales is what LiteRT says of the file."""

import re

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from qkd_tf.contract import pictures
from qkd_tf.contract.pictures import Size
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
