"""Where images or signals come from."""

import dataclasses
import math

from qkd_tf.contract.origin import IN_MEMORY
from qkd_tf.contract.pictures import Size, sides
from qkd_tf.experiment.checks import printable, require, require_count, require_known
from qkd_tf.experiment.option import as_flag, option

BATCH_SIZE = 128  # QKD
MAX_SIDE = 8_192  # pixels
RESIZES = ("crop", "squash")
CROP_PADDING, SIDES_OF_PADDING = 4, 8  # at most 4 pixels, and at most an eighth of a side (QKD, CIFAR: 4 of 32)
FEW_STEPS = 10  # of an epoch: with fewer of them the default epochs train little
FEWEST_STEPS = 16  # that an epoch should have
SMALLEST_BATCH = 8  # BatchNorm statistics of fewer are largely chance
ARRAYS = (IN_MEMORY, "npz:", "npy:", "digits")  # sets that are trained on as they are, as Keras' fit does


def image_size_of(text: object) -> Size:
    """A size as users write it: 224, "224", "96x64" (height x width) or (96, 64).

    Raises:
      ValueError: anything else.
    """
    sides = text.lower().split("x") if isinstance(text, str) else text
    sides = list(sides) if isinstance(sides, list | tuple) else [sides]
    if not (1 <= len(sides) <= 2 and all(isinstance(side, int) or str(side).strip().isdecimal() for side in sides)):
        raise ValueError(f"{text!r} is not a size; give pixels per side, such as 224, or height x width, such as 96x64")
    height, *width = map(int, sides)
    return height if not width or width[0] == height else (height, width[0])


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where images come from, and how a training batch is made from them."""

    name: str = dataclasses.field(
        metadata=as_flag(
            "cifar10",
            "Data set: 'digits' (built in), 'folder:/path' of pictures, a TFDS classification set by its name, or "
            "arrays of pictures or signals in 'npz:/file.npz' or 'npy:/folder'.",
            flag="dataset",
        )
    )
    data_dir: str = option("", "Folder with the data sets that TFDS prepared; empty: the default folder of TFDS.")
    test_split: str = option(
        "", "Split for the final test; empty: test, or validation where the test split of TFDS has no labels."
    )
    test_fraction: float = option(
        0.0,
        "For folder:/path without a test folder: share of the pictures, in [0, 1), that becomes the test split; 0: the "
        "test folder is the test split.",
    )
    image_size: Size = option(
        0,
        "Size that images are resized to: pixels per side, or height x width as 96x64; 0: their own size, which "
        "must then be the same for all.",
    )
    resize: str = option(
        "crop",
        "How images are resized to --image_size: crop scales them to cover it and cuts out the centre, squash scales "
        "both sides to fit, as Keras does.",
        choices=RESIZES,
    )
    image_channels: int = option(0, "Channels of the input: 1 for grey, 3 for RGB, 0 for those of the data set.")
    validation_fraction: float = option(
        0.1, "Share of the training split, in (0, 1), kept for validation, which chooses the best epoch."
    )
    signals: bool | None = option(
        None, "Read arrays as signals, not pictures: no crop, no mirroring, no resizing; default: their shape decides."
    )
    input_scale: float | None = option(
        None, "For signals: real value of one of the input's 256 steps; default: computed from the training set."
    )
    input_zero_point: int | None = option(
        None,
        "For signals: the step, 0..254, that stands for 0.0 (an int8 input has this minus 128); default: computed from "
        "the training set.",
    )
    crop_padding: int | None = option(
        None,
        "Black pixels added around a training image before the random crop; default: an eighth of its side, at most 4 "
        "(QKD, CIFAR: 4), and 0 for arrays, signals, digits, a trained model of your own, and a student with "
        "augmentation layers.",
    )
    horizontal_flip: bool | None = option(
        None,
        "Mirror half of the training images; default: yes, except for arrays, signals, digits and a student with "
        "augmentation layers.",
    )
    augment: str = option(
        "",
        "Your own augmentation after crop and mirroring, as package.module:function. It is called as augment(images, "
        "seed); it takes and returns images [N, H, W, C] of uint8.",
    )
    student_augmentation: bool = option(
        True,
        "Apply the augmentation layers at the student's beginning, such as RandomFlip, to training images, as Keras "
        "does.",
    )
    batch_size: int = dataclasses.field(
        default=BATCH_SIZE,
        metadata=as_flag(
            None,
            f"Images per training step, over all devices together; default: {BATCH_SIZE} (QKD), or fewer if an epoch "
            f"would have fewer than {FEW_STEPS} steps.",
        ),
    )
    batch_is_default: bool = False  # none was given, so that it may depend on the number of images
    reading_batch: int = 0  # images that calibration, validation and test read at once; 0: batch_size
    seed: int = 0
    scales_jpegs: bool = True  # decode large ones at a fraction of their size; handoffs of earlier versions lack this
    skip_broken_images: bool = option(
        False, "Leave out files of a folder that cannot be decoded; default: stop with an error."
    )
    max_steps: int = option(0, "For a trial: end each epoch after this many training steps; 0: whole epochs.")
    max_eval_images: int = option(0, "For a trial: use only this many images of validation and of test; 0: all.")

    def __post_init__(self) -> None:
        for field in ("name", "data_dir", "test_split", "augment"):
            given = getattr(self, field)
            flag = "dataset" if field == "name" else field
            told = printable(given)
            require(told == given, f"--{flag}={told} is not valid UTF-8, which the files of a run need; rename it")
        require_known(self.resize, RESIZES, "--resize")
        require(
            self.image_channels in (0, 1, 3),
            f"--image_channels={self.image_channels} is out of range; 1 is grey, 3 is RGB, 0 is that of the data set",
        )
        require(0 < self.validation_fraction < 1, f"--validation_fraction={self.validation_fraction} is not in (0, 1)")
        require(
            0 <= self.test_fraction < 1,
            f"--test_fraction={self.test_fraction} is not in [0, 1); 0 takes the folder test beside train",
        )
        require(
            not self.test_fraction or self.name.startswith("folder:"),
            f"--test_fraction={self.test_fraction} is only for --dataset=folder:…, and --dataset={self.name} is not a "
            "folder; leave it out",
        )
        require_count(self.batch_size, "batch_size", 1)
        require_count(self.crop_padding or 0, "crop_padding", highest=MAX_SIDE)
        for side in self.size or (0,):
            lowest = min(len(self.size or ()), 1)
            require_count(side, "image_size", lowest, highest=MAX_SIDE, why="0 keeps the size of the set")
        step, zero_point = self.input_scale, self.input_zero_point
        require(step is None or 0 < step < math.inf, f"--input_scale={step}: a positive, finite number is expected")
        require_count(zero_point or 0, "input_zero_point", highest=254, why="it is the step that means 0.0")
        require(
            self.signals is not False or step is zero_point is None,
            "--input_scale and --input_zero_point are for signals, and --nosignals says that the data are pictures; "
            "leave one of them out",
        )
        require_count(self.max_steps, "max_steps", why="0 is for whole epochs")
        require_count(self.max_eval_images, "max_eval_images", highest=10**9, why="0 is for all")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width to which pictures are resized; None if they keep theirs."""
        return sides(self.image_size) if self.image_size else None

    @staticmethod
    def fitting_batch(num_train: int) -> int:
        """A power of two that leaves an epoch enough steps, at most the default."""
        wanted = max(SMALLEST_BATCH, num_train // FEWEST_STEPS)
        return 1 << (min(BATCH_SIZE, wanted, num_train).bit_length() - 1)

    def on_images(self, num_train: int, least: int = 1) -> "DataSpec":
        """The same set, if batch_size was left open, in batches of which an epoch has enough.

        Calibration, validation and test are still read in batches of the default's size.

        Args:
          least: the number of parts into which a batch is divided.
        """
        fitting = max(least, self.fitting_batch(max(1, num_train)))
        if (
            fitting % least
            or not self.batch_is_default
            or num_train // self.batch_size >= FEW_STEPS
            or fitting >= self.batch_size
        ):
            return self
        return dataclasses.replace(self, batch_size=fitting, reading_batch=self.batch_size)

    def beside_layers(self) -> "DataSpec":
        """The same set for a student with augmentation layers of its own: mirroring and borders only as asked for."""
        if not self.student_augmentation:
            return self
        mirrors, padding = bool(self.horizontal_flip), self.crop_padding or 0
        return dataclasses.replace(self, horizontal_flip=mirrors, crop_padding=padding)

    @property
    def called(self) -> str:
        """The set's name in messages."""
        return "the given data" if self.name.startswith(IN_MEMORY) else self.name

    @property
    def is_arrays(self) -> bool:
        """Whether examples are arrays, all of one shape."""
        return self.name.startswith(ARRAYS)

    def padding(self, height: int, width: int) -> int:
        """Black pixels added around a training picture of this size before the random crop."""
        if self.crop_padding is not None:
            return self.crop_padding
        if self.is_arrays or self.crops_larger:
            return 0
        return min(CROP_PADDING, min(height, width) // SIDES_OF_PADDING)

    @property
    def mirrors(self) -> bool:
        """Whether half of the training pictures are mirrored."""
        return not self.is_arrays if self.horizontal_flip is None else self.horizontal_flip

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what is done to training pictures by default, one per line."""
        shifts = not (self.is_arrays or self.crops_larger) and self.crop_padding is None
        rows = (
            (
                self.horizontal_flip is None and self.mirrors,
                "half of the training pictures are mirrored; if left and right matter, as in letters and signs, give "
                "--nohorizontal_flip",
            ),
            (
                shifts,
                f"training pictures are shifted by up to {CROP_PADDING} pixels, and black fills what that uncovers; "
                "--crop_padding=0 leaves them where they are",
            ),
        )
        return tuple(f"note: {note}" for is_so, note in rows if is_so)

    @property
    def crops_larger(self) -> bool:
        """Whether resized training images are larger than the crop that is taken from them."""
        return self.size is not None and self.resize == "crop"

    @property
    def of_pictures(self) -> list[str]:
        """Flags that were given and are only for pictures."""
        names = ("image_size", "image_channels", "crop_padding", "horizontal_flip", "skip_broken_images")
        return [name for name in names if getattr(self, name)] + ["resize"] * (self.resize != RESIZES[0])

    @property
    def of_signals(self) -> list[str]:
        """Flags that were given and are only for signals."""
        given = {"signals": self.signals, "input_scale": self.input_scale, "input_zero_point": self.input_zero_point}
        return [name for name, value in given.items() if value is not None and value is not False]

    @property
    def eval_images(self) -> slice:
        """The part of validation and test that is read."""
        return slice(self.max_eval_images or None)
