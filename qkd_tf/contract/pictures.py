"""How a picture is brought to a network's size."""

RESIZE_RATIO = 256 / 224  # of the shorter side to the crop (LSQ, EfficientNet and others on ImageNet)


Size = int | tuple[int, int]  # pixels of both sides, or height and width


def sides(size: Size) -> tuple[int, int]:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resized_side(image_size: int) -> int:
    """Side in pixels that a resized picture covers, from which the centre of `image_size` is cropped."""
    return round(image_size * RESIZE_RATIO)


def room(size: Size) -> tuple[int, int]:
    """`resized_side` for height and width."""
    height, width = sides(size)
    return resized_side(height), resized_side(width)
