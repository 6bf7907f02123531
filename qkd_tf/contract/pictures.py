"""How a picture becomes one of a network's size."""

RESIZE_RATIO = 256 / 224  # of the shorter side to the crop (LSQ, EfficientNet and others on ImageNet)


def resized_side(image_size: int) -> int:
    """Pixels of the shorter side after resizing, out of which the centre of `image_size` is cropped."""
    return round(image_size * RESIZE_RATIO)
