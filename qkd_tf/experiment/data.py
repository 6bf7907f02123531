"""Where images come from."""

import dataclasses

from qkd_tf.experiment.checks import printable, require, require_count, require_known
from qkd_tf.experiment.option import as_flag, option

MAX_SIDE = 8_192  # pixels
RESIZES = ("crop", "squash")


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where images come from and how a training batch is made of them."""

    name: str = dataclasses.field(
        metadata=as_flag(
            "cifar10", "Images: 'digits' (embedded), 'folder:/path', or a TFDS classification set.", flag="dataset"
        )
    )
    data_dir: str = option("", "Folder in which TFDS has prepared the set; empty: the default folder of TFDS.")
    test_split: str = option("", "Split for the final look; empty: test, or validation where TFDS has no labels.")
    image_size: int = option(0, "Pixels of a side; 0 keeps the size of the set (all images must then agree).")
    resize: str = option(
        "crop",
        "How images become of --image_size: the centre of the shorter side, or both sides squashed, as Keras does.",
        choices=RESIZES,
    )
    image_channels: int = option(0, "Channels that networks read: 1 is grey, 3 RGB, 0 what the set has.")
    validation_fraction: float = option(0.1, "Share of the training split, in (0, 1), that chooses the best epoch.")
    crop_padding: int = option(4, "Black pixels around a training image before the random crop (QKD, CIFAR: 4).")
    horizontal_flip: bool = option(True, "Mirror half of the training images.")
    augment: str = option(
        "",
        "Augmentation of your own behind crop and mirror, package.module:function: augment(images, seed), images "
        "[N, H, W, C] of uint8 both ways.",
    )
    batch_size: int = option(128, "Images a training step, of all devices together (QKD: 128).")
    seed: int = 0
    skip_broken_images: bool = option(False, "Leave out files of a folder that cannot be decoded; default: refuse.")
    max_steps: int = option(0, "Training steps after which each epoch ends, for a trial; 0: whole epochs.")
    max_eval_images: int = option(0, "First images of validation and of test that are read, for a trial; 0: all.")

    def __post_init__(self) -> None:
        for field in ("name", "data_dir", "test_split", "augment"):
            given = getattr(self, field)
            flag = "dataset" if field == "name" else field
            told = printable(given)
            require(told == given, f"--{flag}={told} is not UTF-8, as the files of a run are; rename it")
        require_known(self.resize, RESIZES, "--resize")
        require(
            self.image_channels in (0, 1, 3),
            f"--image_channels={self.image_channels} is out of range; 1 is grey, 3 is RGB, 0 is what the set has",
        )
        require(0 < self.validation_fraction < 1, f"--validation_fraction={self.validation_fraction} is not in (0, 1)")
        require_count(self.batch_size, "batch_size", 1)
        require_count(self.crop_padding, "crop_padding", highest=MAX_SIDE)
        require_count(self.image_size, "image_size", highest=MAX_SIDE, why="0 keeps the size of the set")
        require_count(self.max_steps, "max_steps", why="0 is for whole epochs")
        require_count(self.max_eval_images, "max_eval_images", highest=10**9, why="0 is for all")

    @property
    def crops_larger(self) -> bool:
        """Whether resized training images are larger than what is cropped of them."""
        return self.image_size > 0 and self.resize == "crop"

    @property
    def eval_images(self) -> slice:
        """The part of validation and test that is read."""
        return slice(self.max_eval_images or None)
