import base64
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qkd_tf.data import pixels
from qkd_tf.experiment import DataSpec


def test_another_epoch_has_other_crops_too():
    """Told apart from the order by pictures that are all the same."""
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) + 1
    crops = [
        pixels.augment(
            np.stack([picture] * 32), (8, 8, 1), DataSpec("mnist"), tf.constant([seed, step], tf.int64)
        ).numpy()
        for seed, step in ((0, 0), (1, 0), (0, 1))
    ]
    assert not np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


@pytest.mark.parametrize(
    "spec, side, padding, mirrors, noted",
    [
        ({"name": "cifar10"}, 32, 4, True, ["mirrored", "shifted"]),
        ({"name": "mnist"}, 8, 1, True, ["mirrored", "shifted"]),
        ({"name": "folder:x"}, 96, 4, True, ["mirrored", "shifted"]),
        ({"name": "folder:x", "image_size": 96}, 96, 0, True, ["mirrored"]),
        ({"name": "folder:x", "image_size": 96, "resize": "squash"}, 96, 4, True, ["mirrored", "shifted"]),
        *(({"name": name}, 32, 0, False, []) for name in ("in_memory:x", "npz:x", "npy:x", "digits")),
        ({"name": "in_memory:x", "crop_padding": 2, "horizontal_flip": True}, 32, 2, True, []),
        ({"name": "cifar10", "crop_padding": 0, "horizontal_flip": False}, 32, 0, False, []),
    ],
)
def test_arrays_are_trained_on_as_they_are_and_others_cropped_by_their_size(spec, side, padding, mirrors, noted):
    """What is done by default is noted, and what was asked for is not."""
    spec = DataSpec(**spec)
    assert (spec.padding(side, 2 * side), spec.mirrors) == (padding, mirrors)
    assert len(spec.notes) == len(noted)
    for note, done in zip(spec.notes, noted, strict=True):
        assert note.startswith("note: ") and f"training pictures are {done}" in note


def crops(padded, height, width):
    rows, columns = padded.shape[0] - height + 1, padded.shape[1] - width + 1
    return [padded[y : y + height, x : x + width] for y in range(rows) for x in range(columns)]


@given(
    seed=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    pad=st.integers(0, 3),
    flip=st.booleans(),
    height=st.integers(2, 5),
    width=st.integers(2, 5),
)
def test_augmented_images_are_crops_of_the_padded_one_or_their_mirror(seed, pad, flip, height, width):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (6, height, width, 2)).astype(np.uint8)
    spec = DataSpec("digits", crop_padding=pad, horizontal_flip=flip)
    got = pixels.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    again = pixels.augment(images, (height, width, 2), spec, tf.constant(seed, tf.int64)).numpy()
    assert got.dtype == np.uint8 and got.shape == images.shape
    np.testing.assert_array_equal(got, again)
    for image, augmented in zip(images, got, strict=True):
        allowed = crops(np.pad(image, [(pad, pad), (pad, pad), (0, 0)]), height, width)
        allowed += [crop[:, ::-1] for crop in allowed] if flip else []
        assert any(np.array_equal(augmented, crop) for crop in allowed)


def test_every_crop_and_mirror_comes_up_about_equally_often():
    picture = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1)
    spec = DataSpec("digits", crop_padding=1, horizontal_flip=True)
    got = pixels.augment(np.stack([picture] * 3600), (3, 3, 1), spec, tf.constant([1, 2], tf.int64)).numpy()
    _, counts = np.unique(got.reshape(3600, -1), axis=0, return_counts=True)
    assert len(counts) == 9 * 2
    assert counts.min() > 140 and counts.max() < 260  # 200 of each; deviation 14


SCENE = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
# SCENE, lossless, by libjxl.
JXL = base64.b64decode(
    "/wqYIBAJCAABAHwCSxiTjoOFCQAFLikRdazqIgz4AuEBYH7hBXB2zYRqac1JU1t2f9N3FrwilUBaRtiWO1fodcFqWV1HyDRBeo5C"
    "CiFS3AGpHsNd4R6PXmXIKGJ+TW6JdeJD3QzZKkVhamMhWXc6WqmgQCekSNvjgBcSRgP4/+8ZQwriNyLjagNsJfZN180MCoBpOjI4"
    "CbIL7LOZrarxp8/1XA6LoAejgC85"
)


def encoded(picture, form, **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def decoded(content, channels=3):
    """Outside of a graph and inside of one, where files are read by tf.data."""
    eager = pixels.decode(tf.constant(content), channels).numpy()
    dataset = tf.data.Dataset.from_tensors(content).map(lambda content: pixels.decode(content, channels))
    (graph,) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(eager, graph)
    assert dataset.element_spec.shape.as_list() == [None, None, channels]
    return eager


def see_through(picture):
    alpha = Image.fromarray(SCENE[..., 0] // 2)
    picture = picture.convert("RGBA")
    picture.putalpha(alpha)
    return picture


def as_it_is(picture):
    return picture


@pytest.mark.parametrize(
    "form, options",
    [
        ("PNG", {}),
        ("BMP", {}),
        ("DIB", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("GIF", {}),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        as_it_is,
        see_through,
        lambda picture: picture.convert("L"),
        lambda picture: picture.convert("1"),
        lambda picture: picture.quantize(2),
        lambda picture: picture.quantize(16),
        lambda picture: picture.quantize(256),
    ],
    ids=["colours", "alpha", "grey", "bits", "palette of 2", "palette of 16", "palette of 256"],
)
def test_lossless_formats_give_the_very_pixels(form, options, change):
    picture = change(Image.fromarray(SCENE))
    if form == "GIF" and picture.mode == "RGBA":
        picture = picture.convert("RGB")  # of a GIF, what is seen through is black
    if form == "DIB" and picture.mode == "RGBA":
        picture = picture.convert("RGB")  # Pillow writes none
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decoded(encoded(picture, form, **options)), expected)
    grey = decoded(encoded(picture, form, **options), channels=1)[..., 0].astype(int)
    assert np.abs(grey - np.asarray(picture.convert("RGB").convert("L"))).max() <= 1
    if picture.mode in ("L", "1"):
        np.testing.assert_array_equal(grey, np.asarray(picture.convert("L")))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "MPO"])
def test_lossy_formats_give_nearly_the_pixels(form):
    smooth = np.asarray(Image.fromarray(SCENE[::4, ::4]).resize((96, 80), Image.Resampling.BICUBIC))
    picture = Image.fromarray(smooth)
    assert np.abs(decoded(encoded(picture, form, quality=95)).astype(int) - smooth).mean() < 4
    grey = decoded(encoded(picture, form, quality=95), channels=1)[..., 0].astype(int)
    assert np.abs(grey - np.asarray(picture.convert("L"))).mean() < 4


def test_jpeg_xl_is_read():
    np.testing.assert_array_equal(decoded(JXL), SCENE)


@pytest.mark.parametrize("channels", [1, 3])
def test_cmyk_becomes_rgb_and_grey(channels):
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = decoded(encoded(picture, "JPEG", quality=95), channels)
    assert np.abs(found.astype(int) - ([255, 0, 0] if channels == 3 else [76])).max() < 8


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_picture_is_read(form):
    frames = [Image.new("RGB", (16, 12), (value, value, value)) for value in (90, 160, 200)]
    found = decoded(encoded(frames[0], form, save_all=True, append_images=frames[1:]))
    assert found.shape == (12, 16, 3) and np.abs(found.astype(int) - 90).max() <= 2


def bmp(bits, body, compression=0, palette=b"", size=(4, 2)):
    """A BMP as Windows writes it, bottom row first."""
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


COLOURS = bytes([10, 20, 30, 0, 40, 50, 60, 0, 70, 80, 90, 0])  # blue, green, red
A, B, C = [30, 20, 10], [60, 50, 40], [90, 80, 70]


@pytest.mark.parametrize(
    "content, expected",
    [
        (bmp(8, bytes([0, 1, 2, 0, 1, 1, 2, 2]), 0, COLOURS), [[B, B, C, C], [A, B, C, A]]),
        (bmp(8, bytes([3, 1, 1, 2, 0, 0, 4, 0, 0, 1]), 1, COLOURS), [[A, A, A, A], [B, B, B, C]]),
        (bmp(4, bytes([0x01, 0x20, 0, 0, 0x11, 0x22, 0, 0]), 0, COLOURS), [[B, B, C, C], [A, B, C, A]]),
        (bmp(1, bytes([0b01010000, 0, 0, 0, 0b11000000, 0, 0, 0]), 0, COLOURS[:8]), [[B, B, A, A], [A, B, A, B]]),
        (bmp(16, struct.pack("<8H", *[31 << 10] * 4, *[31] * 4)), [[[0, 0, 255]] * 4, [[255, 0, 0]] * 4]),
    ],
    ids=["8 bits", "RLE", "4 bits", "1 bit", "16 bits"],
)
def test_old_bitmaps_are_read_by_their_palette(content, expected):
    np.testing.assert_array_equal(decoded(content), np.array(expected))


@pytest.mark.parametrize(
    "content",
    [
        b"BM",
        b"BM" + bytes(60),
        bmp(2, bytes(8)),
        bmp(8, bytes(3), 0, COLOURS),
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"words",
        b"x",
        b"",
        encoded(Image.fromarray(SCENE), "WEBP")[:40],
        encoded(Image.fromarray(SCENE), "AVIF")[:60],
        encoded(Image.fromarray(SCENE), "TIFF"),
    ],
)
def test_what_is_no_picture_is_an_error_of_tensorflow(content):
    with pytest.raises(tf.errors.OpError):
        pixels.decode(tf.constant(content))
    with pytest.raises(tf.errors.OpError):
        list(tf.data.Dataset.from_tensors(content).map(pixels.decode))


def test_suffixes_are_those_of_formats_that_are_decoded():
    pictures = {
        form: encoded(Image.fromarray(SCENE), form.replace("WebP", "WEBP"))
        for form in pixels.FORMATS
        if form != "JPEG XL"
    }
    pictures["JPEG XL"] = JXL
    for content in pictures.values():
        assert decoded(content).shape == SCENE.shape


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (24, 24), (7, 50)])
def test_squashed_pictures_are_those_of_keras_in_whole_numbers(tmp_path, size):
    picture = Image.fromarray(SCENE).resize(size, Image.Resampling.BICUBIC)
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "1.png")
    keras = tf_keras.utils.image_dataset_from_directory(tmp_path, image_size=(16, 16))
    expected = next(iter(keras))[0][0].numpy()
    found = pixels.squash(pixels.decode(tf.constant((tmp_path / "a" / "1.png").read_bytes())), 16)
    np.testing.assert_array_equal(found, np.rint(expected))


def jpeg(mode, size, quality=95):
    """A soft picture, (width, height) pixels."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 8, len(mode))).astype(np.uint8)
    picture = Image.fromarray(blocks.squeeze(-1) if mode == "L" else blocks, mode).resize(
        size, Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


# Covered 16 x 24: a part of the sides is taken where 32 x 48 is left of them.
@pytest.mark.parametrize(
    "width, height, part",
    [(95, 63, 1), (96, 63, 1), (95, 64, 1), (96, 64, 2), (97, 65, 2), (191, 500, 2), (192, 128, 4), (900, 257, 8)],
)
@pytest.mark.parametrize("mode, channels", [("RGB", 3), ("RGB", 1), ("L", 3), ("L", 1), ("CMYK", 3)])
def test_large_jpeg_is_decoded_at_the_part_that_leaves_twice_what_is_needed(width, height, part, mode, channels):
    encoded, covered = tf.constant(jpeg(mode, (width, height))), (16, 24)
    whole, found = pixels.decode(encoded, channels), pixels.decode(encoded, channels, covered)
    assert found.shape == (-(-height // part), -(-width // part), channels)
    if part == 1:
        np.testing.assert_array_equal(found, whole)
    if mode == "RGB" and channels == 3:
        (mapped,) = tf.data.Dataset.from_tensors(encoded).map(lambda file: pixels.decode(file, channels, covered))
        np.testing.assert_array_equal(found, mapped)


def test_resized_picture_is_nearly_that_of_the_whole_one():
    encoded = tf.constant(jpeg("RGB", (400, 300)))
    whole, scaled = (
        pixels.resize(pixels.decode(encoded, covered=covered), 28).numpy().astype(int) for covered in (None, (32, 32))
    )
    assert pixels.decode(encoded, covered=(32, 32)).shape == (75, 100, 3)
    difference = np.abs(scaled - whole)
    assert difference.mean() < 1 and difference.max() <= 6


def test_other_formats_and_other_ways_to_resize_take_the_whole_picture():
    file = io.BytesIO()
    Image.new("RGB", (400, 300)).save(file, "PNG")
    assert pixels.decode(tf.constant(file.getvalue()), covered=(16, 16)).shape == (300, 400, 3)
    encoded = tf.constant(jpeg("RGB", (400, 300)))
    for changes, height in (
        ({"image_size": 28}, 75),
        ({"image_size": 28, "scales_jpegs": False}, 300),
        ({"image_size": 28, "resize": "squash"}, 300),
        ({}, 300),
    ):
        assert pixels.decoder(DataSpec("folder:x", **changes), 3)(encoded).shape == (height, height * 4 // 3, 3)


@pytest.mark.parametrize(
    "sizes, told",
    [
        ([(32, 32)], ["note: pictures are smaller than 64x64, and enlarged to that, which adds no detail"]),
        ([(64, 64), (32, 32), (99, 63)], ["note: 1 of 3 pictures is not square", "note: 2 of 3 pictures are smaller"]),
        ([(64, 64), (32, 32)], []),
        ([(128, 128)], []),
        ([(None, None)], ["note: pictures are not square"]),
        ([(64, 64)], ["note: pictures already have 64x64 pixels"]),
    ],
)
def test_what_resizing_does_is_told(sizes, told):
    notes = pixels.shape_notes(DataSpec("folder:x", image_size=64), *sizes)
    assert len(notes) == len(told) and all(note.startswith(text) for note, text in zip(notes, told, strict=True))
