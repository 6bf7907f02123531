"""Pictures: from a file's bytes to pixels, to one size, to a training batch."""

import tensorflow as tf

from qkd_tf.experiment import DataSpec

RESIZE_RATIO = 256 / 224  # of the shorter side to the crop (LSQ, EfficientNet and others on ImageNet)


def decode(encoded: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """JPEG, PNG, GIF (its first picture) or BMP as pixels [h, w, channels] uint8.

    Grey pictures get three equal channels, CMYK becomes RGB, an alpha channel is dropped, 16 bits become 8.
    """
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def resize(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Shorter side to `room(image_size)`, then the centre square; pixels stay whole numbers."""
    side = room(image_size)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(tf.round(shape * side / tf.reduce_min(shape)), tf.int32)
    image = tf.image.resize(image, size, antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def room(image_size: int) -> int:
    """Side of the resized square, in pixels, out of which `image_size` is cropped."""
    return round(image_size * RESIZE_RATIO)


def augment(images: tf.Tensor, image_shape: tuple[int, int, int], spec: DataSpec, seed: tf.Tensor) -> tf.Tensor:
    """Random crop out of black padding and random mirror, by `seed` [2] alone.

    Args:
      images: [N, h, w, C] uint8, h and w at least those of `image_shape`.

    Returns:
      [N, H, W, C] uint8.
    """
    height, width, channels = image_shape
    pad = spec.crop_padding if not spec.image_size else 0
    images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    n, padded_height, padded_width, _ = tf.unstack(tf.shape(images))
    spare = tf.stack([padded_height - height, padded_width - width])
    crop_seed, mirror_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    offsets = tf.random.stateless_uniform([n, 2], crop_seed)
    top, left = tf.split(tf.cast(offsets * tf.cast(spare + 1, tf.float32), tf.int32), 2, axis=1)
    columns = tf.range(width)
    if spec.horizontal_flip:
        mirror = tf.random.stateless_uniform([n, 1], mirror_seed) < 0.5
        columns = tf.where(mirror, columns[::-1], columns)
    # Crop and mirror are one choice of pixels: five times faster than one after the other.
    rows = tf.range(n)[:, tf.newaxis] * padded_height + top + tf.range(height)
    chosen = rows[:, :, tf.newaxis] * padded_width + (left + columns)[:, tf.newaxis]
    return tf.gather(tf.reshape(images, [-1, channels]), chosen)
