"""Pictures: from a file's bytes to pixels, to one size, to a training batch."""

import functools
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import Image

from qkd_tf.contract.pictures import Size, room, sides
from qkd_tf.experiment import DataSpec

# What `decode` reads -> how names of such files end. TensorFlow reads JPEG, JPEG XL, PNG and GIF, Pillow the others.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "WebP": (".webp",),
    "AVIF": (".avif",),
    "JPEG XL": (".jxl",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
KERAS = "Keras' image_dataset_from_directory"
# --resize -> what it does to a picture of another ratio.
SHAPES = {
    "crop": f"they are cropped to their middle; --resize=squash squashes them to {{}} instead, as {KERAS} does",
    "squash": f"they are squashed to {{}}, as {KERAS} does; --resize=crop crops them to their middle instead",
}
DIB_HEADS = [size.to_bytes(4, "little") for size in (12, 40, 64, 108, 124)]  # of a BMP without the file's header
LUMA = (0.299, 0.587, 0.114)  # of RGB (BT.601, as JPEG's)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its sides if these are then still JPEG_ROOM times those that it is resized to.
JPEG_PARTS, JPEG_ROOM = (2, 4, 8), 2


def decoder(spec: DataSpec, channels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """`decode` for the pictures of a set that will be resized as `spec` says."""
    covered = room(spec.size) if spec.crops_larger and spec.scales_jpegs else None
    return functools.partial(decode, channels=channels, covered=covered)


def decode(encoded: tf.Tensor, channels: int = 3, covered: tuple[int, int] | None = None) -> tf.Tensor:
    """The first picture in a file of any of FORMATS, as pixels [h, w, channels] uint8 with 1, 3 or 4 channels.

    Grey pictures get three equal channels, CMYK becomes RGB, an alpha channel is dropped, palettes are looked up, and
    16-bit values keep their upper 8 bits. For 1 channel, colours become their luma, and grey stays as it is.

    Args:
      covered: height and width that the picture is resized to cover: a JPEG that is far larger is decoded at a half, a
        fourth or an eighth of its sides, which is several times faster. None for pixels as they are stored.

    Raises:
      tf.errors.OpError: not a picture, or one that its decoder refuses.
    """
    head = tf.strings.join([tf.strings.substr(encoded, 0, 12), b"\0" * 12])  # a file may be shorter
    is_bmp = (tf.strings.substr(head, 0, 2) == b"BM") | tf.reduce_any(tf.strings.substr(head, 0, 4) == DIB_HEADS)
    is_webp = (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")
    is_avif = tf.reduce_any(tf.strings.substr(head, 4, 8) == [b"ftypavif", b"ftypavis"])
    is_jpeg = tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff"
    by_pillow, by_tensorflow = (functools.partial(by, encoded, channels) for by in (_by_pillow, _by_tensorflow))
    others = by_tensorflow
    if covered and channels < 4:
        others = functools.partial(
            tf.cond, is_jpeg, functools.partial(_jpeg, encoded, channels, covered), by_tensorflow
        )
    image = tf.cond(is_bmp | is_webp | is_avif, by_pillow, others)
    image.set_shape([None, None, channels])
    return image


def _by_tensorflow(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    return recolour(tf.io.decode_image(encoded, channels=max(channels, 3), expand_animations=False), channels)


def _jpeg(encoded: tf.Tensor, channels: int, covered: tuple[int, int]) -> tf.Tensor:
    """Decodes a JPEG at the smallest of JPEG_PARTS that is large enough, or at full size."""
    shape = tf.image.extract_jpeg_shape(encoded)[:2]
    most = tf.reduce_min(shape // (JPEG_ROOM * tf.constant(covered)))

    def scaled(part: int) -> tf.Tensor:
        return recolour(tf.io.decode_jpeg(encoded, channels=max(channels, 3), ratio=part), channels)

    return tf.switch_case(
        tf.reduce_sum(tf.cast(most >= JPEG_PARTS, tf.int32)),
        [
            functools.partial(_by_tensorflow, encoded, channels),
            *(functools.partial(scaled, part) for part in JPEG_PARTS),
        ],
    )


def _by_pillow(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Formats that TensorFlow reads wrongly (BMP palettes), in part (WebP, where animations can crash) or not (AVIF).

    Stateless, because after a stateful function TensorFlow's deterministic mode decodes one picture at a time.
    """
    if tf.executing_eagerly():
        return tf.constant(_pillow_pixels(encoded.numpy(), channels))

    def pixels(encoded: np.ndarray) -> np.ndarray:
        return _pillow_pixels(np.asarray(encoded, object).item(), channels)

    return tf.numpy_function(pixels, [encoded], tf.uint8, stateful=False)


def _pillow_pixels(encoded: bytes, channels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded), formats=("BMP", "DIB", "WEBP", "AVIF")) as picture:
            return np.asarray(picture.convert(MODES[channels])).reshape(picture.height, picture.width, channels)
    except Image.UnidentifiedImageError:  # whose text is of an object in memory
        raise tf.errors.InvalidArgumentError(None, None, "Pillow does not recognise it") from None
    except Exception as error:  # whatever a decoder finds in a file that may be anything
        raise tf.errors.InvalidArgumentError(None, None, str(error) or type(error).__name__) from error


def recolour(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Pixels [..., 1, 3 or 4] uint8 with `channels` channels: grey repeated, colours as luma, alpha dropped."""
    if image.shape[-1] == 4 and channels < 4:
        image = image[..., :3]
    if image.shape[-1] == 1 and channels == 3:
        return tf.image.grayscale_to_rgb(image)
    if image.shape[-1] == 3 and channels == 1:
        luma = tf.reduce_sum(tf.cast(image, tf.float32) * LUMA, axis=-1, keepdims=True)
        return tf.cast(tf.round(luma), tf.uint8)
    return image


def resize(image: tf.Tensor, image_size: Size) -> tf.Tensor:
    """Scales a picture so that it just covers `room(image_size)`, and crops the centre; pixels stay whole numbers."""
    room_of = room(image_size)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    covers = tf.argmax(tf.cast(room_of, tf.float32) / shape)  # the side that becomes what it has to be
    resized = tf.cast(tf.round(shape * tf.gather(tf.cast(room_of, tf.float32), covers) / shape[covers]), tf.int32)
    image = tf.image.resize(image, resized, antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, *room_of)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def squash(image: tf.Tensor, image_size: Size) -> tf.Tensor:
    """The whole picture at that size, as `tf_keras.utils.image_dataset_from_directory` does it, in whole numbers."""
    image = tf.image.resize(image, sides(image_size))  # without antialias, as there
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def shape_notes(spec: DataSpec, *sizes: tuple[int | None, int | None]) -> tuple[str, ...]:
    """Lines on what resizing does to pictures of another aspect ratio than --image_size, of that very size, or smaller.

    Args:
      sizes: heights and widths of the stored pictures; None if they differ.
    """
    if spec.size is None:
        return ()
    height, width = spec.size
    shape = "a square" if height == width else f"{height}x{width}"
    num_other = sum(None in size or size[0] * width != size[1] * height for size in sizes)
    if not num_other and spec.resize == "crop" and set(map(tuple, sizes)) == {spec.size}:
        return (
            f"note: pictures already have {height}x{width} pixels, and are still enlarged and cropped; to take them "
            "as they are, leave --image_size out or give --resize=squash",
        )
    num_small = sum(None not in size and (size[0] < height or size[1] < width) for size in sizes)
    notes = []
    if num_other:
        what = "not square" if height == width else f"not of the aspect ratio {shape}"
        notes.append(f"note: {_counted(num_other, len(sizes))} {what}: {SHAPES[spec.resize].format(shape)}")
    if num_small > len(sizes) // 2:
        which = _counted(num_small, len(sizes))
        notes.append(f"note: {which} smaller than {height}x{width}, and enlarged to that, which adds no detail")
    return tuple(notes)


def _counted(number: int, whole: int) -> str:
    """A subject with its verb."""
    return f"{number:,} of {whole:,} pictures {'is' if number == 1 else 'are'}" if whole > 1 else "pictures are"


def augment(
    images: tf.Tensor,
    image_shape: tuple[int, int, int],
    spec: DataSpec,
    seed: tf.Tensor,
    share: tuple[int, int] = (0, 1),
) -> tf.Tensor:
    """Random crop from black padding, and random mirror; depends only on `seed` [2].

    Args:
      images: [N, h, w, C] uint8, h and w at least those of `image_shape`.
      share: (index, number) of the equal part of the batch that they are; each image comes out as in the whole batch.

    Returns:
      [N, H, W, C] uint8.
    """
    height, width, channels = image_shape
    pad = 0 if spec.crops_larger else spec.padding(height, width)
    images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    n, padded_height, padded_width, _ = tf.unstack(tf.shape(images))
    spare = tf.stack([padded_height - height, padded_width - width])
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    index, number = share

    def drawn(columns: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([number * n, columns], seed)[index * n : (index + 1) * n]

    offsets = drawn(2, crop_seed)
    top, left = tf.split(tf.cast(offsets * tf.cast(spare + 1, tf.float32), tf.int32), 2, axis=1)
    columns = tf.range(width)
    if spec.mirrors:
        mirror = drawn(1, mirror_seed) < 0.5
        columns = tf.where(mirror, columns[::-1], columns)
    # Crop and mirror are one choice of pixels: five times faster than one after the other.
    rows = tf.range(n)[:, tf.newaxis] * padded_height + top + tf.range(height)
    chosen = rows[:, :, tf.newaxis] * padded_width + (left + columns)[:, tf.newaxis]
    return tf.gather(tf.reshape(images, [-1, channels]), chosen)
