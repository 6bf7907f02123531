"""Top-1 of the networks on validation images before the first phase.

It shows whether weights, pixels and labels are right.
"""

import functools
import math
import pathlib

import numpy as np
import tf_keras

from qkd_tf.contract.chance import balanced_by_guessing
from qkd_tf.data import Splits
from qkd_tf.evaluate import predict_logits
from qkd_tf.experiment import FEW_VALIDATION, FEW_WRONG, ExperimentError, require
from qkd_tf.storage import durable

MAX_IMAGES = 2_000  # first validation images: enough for a check, not for a measurement
POINTS_BELOW = 10.0  # that a teacher may be below its student
POINTS_LOST = 2.0  # of validation that training may lose without a word


class Look:
    """Measures networks on the same validation images, once per run.

    Args:
      path: start.json, which keeps the results for a resumed run.

    Raises:
      ExperimentError: that file is damaged.

    Attributes:
      found: row of TITLES -> top-1 in percent.
      balanced: the same of the mean over classes, which is near 100 / classes if the answer is always the same class.
    """

    def __init__(self, splits: Splits, path: pathlib.Path):
        self._batches = splits.validation.take(math.ceil(MAX_IMAGES / (splits.reading_batch or splits.batch_size)))
        self._path = path
        try:
            kept = durable.read_json(path) if path.exists() else {"top1": {}}
            self.found: dict[str, float] = kept["top1"]
            self.balanced: dict[str, float] = kept.get("balanced", {})
        except durable.DamageError as damage:
            raise ExperimentError(f"{damage}; remove that file, and its numbers are measured again") from damage

    def at(self, what: str, model: tf_keras.Model, by_chance: bool = False) -> None:
        """Prints the top-1 of a network that was not measured yet.

        Args:
          what: row of TITLES.
          by_chance: whether its weights are untrained.
        """
        if what in self.found:
            return
        logits, labels = predict_logits(model, self._batches)
        is_right = np.argmax(logits, axis=-1) == labels
        self.found[what] = 100.0 * float(np.mean(is_right))
        of_classes = [np.mean(is_right[labels == label]) for label in np.unique(labels)]
        self.balanced[what] = 100.0 * float(np.mean(of_classes))
        chance = " (random weights)" if by_chance else ""
        print(f"top-1 on {len(labels):,} validation images: {TITLES[what]}{chance}: {self.found[what]:.2f} %")

    def keep(self) -> None:
        """Writes the results; the folder must belong to this run."""
        durable.write_json(self._path, {"top1": self.found, "balanced": self.balanced})

    def is_by_chance(self, what: str) -> bool:
        """Whether a network that was measured is hardly better than always giving the same class."""
        return self.found[what] <= by_chance(self._most_frequent(), len(self._labels))

    @property
    def has_other_statistics(self) -> bool:
        """Whether only BatchNorm statistics of training pictures, once measured, raise the student above chance."""
        return "estimated" in self.found and self.is_by_chance("student") and not self.is_by_chance("estimated")

    def note_on_statistics(self) -> str:
        """A note on a student that starts with BatchNorm statistics of training pictures, in the place of its own."""
        return (
            "note: the student's own BatchNormalization statistics do not fit its weights: with them it is right on "
            f"{self.found['student']:.2f} % of {len(self._labels):,} validation images, with statistics of training "
            f"pictures on {self.found['estimated']:.2f} %, so it starts with the latter. Keras' moving statistics are "
            "far behind after a short training with a momentum such as 0.999"
        )

    def notes_on_weights(self) -> list[str]:
        """Notes on a student that came with weights, once it is measured."""
        if not self.is_by_chance("student"):
            return []
        top1, most_frequent, num_images = self.found["student"], self._most_frequent(), len(self._labels)
        return [
            f"note: the student came with weights, and is right on {top1:.2f} % of {num_images:,} validation images; "
            f"always giving the same class is right on {most_frequent:.2f} %. Was it trained for these classes? "
            "Its labels, their order (folder names, or labels.txt) and the range of pixels must be those of its "
            "training. If it was never trained, begin with a phase in float: --phases=full_precision,self_studying"
        ]

    def notes_on_calibration(self, keeps_start: bool, needs_training: bool) -> list[str]:
        """Notes before a calibrated student trains, if its best epoch will be handed on.

        Args:
          keeps_start: whether it may be handed on itself (`TrainingSpec.may_keep_start`).
          needs_training: whether an epoch may then be worse than it by chance (`QuantizedStudent.needs_training`).
        """
        num_images, num_wrong = len(self._labels), self._num_wrong
        if num_wrong > FEW_WRONG:
            share = (num_images - num_wrong + 1) / (num_images + 2)  # which is 0 or 1 for no number of images
            deviation = 100 * math.sqrt(share * (1 - share) / num_images)
            return [
                f"note: on {num_images:,} validation images the accuracy of an epoch has a standard error of about "
                f"{deviation:.0f} points, so which epoch is best is largely chance; --keep_epoch=last hands on the "
                "last epoch; more validation images (--validation_fraction) make the choice more reliable"
            ] * (num_images < FEW_VALIDATION)
        kept = "of equally good epochs the last is kept"
        if keeps_start and needs_training:
            kept = f"an epoch is kept instead if it makes at most {FEW_WRONG} mistakes more"
        elif keeps_start:
            kept = "it is kept" + (" unless an epoch is better" if num_wrong else ", because no epoch can be better")
        return [
            f"note: before training, the calibrated student is right on {num_images - num_wrong:,} of {num_images:,} "
            f"validation images, so epochs can hardly be told apart; {kept}. --phases= makes this student's file "
            "without training. --keep_epoch=last keeps the last epoch. More validation images (--validation_fraction), "
            "or ones that the model was not trained on, tell epochs apart"
        ]

    def notes_on_phase(self, phase: str, teacher_top1: float) -> list[str]:
        """Notes on a teacher that came with weights and has `teacher_top1` % after a phase."""
        start = self.found["teacher"]
        lost = start - teacher_top1
        if lost <= POINTS_LOST or round(lost / 100 * len(self._labels)) <= FEW_WRONG:
            return []
        return [
            f"note: {phase} cost the teacher {lost:.2f} points: {start:.2f} % of validation images "
            f"before training, {teacher_top1:.2f} % now, and the student learns from it; leave {phase} out "
            "(--phases=self_studying,tutoring), or lower --teacher_lr_ratio to a tenth"
        ]

    def notes_on_discarded_training(self, advice: str) -> list[str]:
        """What a user should know if no epoch of the last phase was better than the calibrated student.

        Args:
          advice: how to train so that the last epoch is handed on.
        """
        told = f"note: no epoch was kept, so the file will be that of the calibrated student: {advice}"
        return [told] if self._num_wrong <= FEW_WRONG else []

    @property
    def _num_wrong(self) -> int:
        """On how many validation images the calibrated student is wrong."""
        return round(len(self._labels) * (1 - self.found["quantized"] / 100))

    def notes_on_end(self, top1: float) -> list[str]:
        """Notes on a student that is right on `top1` % of the validation images after its last phase."""
        start = self.found.get("quantized", 0.0)
        if top1 <= near_chance(self._most_frequent()):
            return [
                f"note: the student is right on {top1:.2f} % of validation images, hardly more than if it always gave "
                "the same class; check labels and pixels, --learning_rates and --epochs"
            ]
        if top1 < start - POINTS_LOST:
            return [
                f"note: training lost accuracy: {start:.2f} % of validation images after calibration, {top1:.2f} % "
                "now; use calibration without training (--phases=), check what --crop_padding, --horizontal_flip, "
                "--augment and augmentation layers of the student do to training pictures, or lower --learning_rates "
                "to a tenth"
            ]
        return []

    def notes_on_no_training(self) -> list[str]:
        """What a user should know of a student without trained weights that no phase trains, after calibration."""
        if not self.is_by_chance("quantized"):
            return []
        return [
            f"note: nothing has trained the student: it is right on {self.found['quantized']:.2f} % of validation "
            "images, hardly more than if it always gave the same class; give a trained model or --student_weights, or "
            "put full_precision first in --phases"
        ]

    @functools.cached_property
    def _labels(self) -> np.ndarray:
        """Labels of these images, read once: reading them again would decode every picture again."""
        return np.concatenate([np.asarray(labels) for _, labels in self._batches])

    def _most_frequent(self) -> float:
        """Share of the most frequent class, in percent."""
        return 100 * float(np.bincount(self._labels).max()) / len(self._labels)

    def require_strong_teacher(self) -> None:
        """Call it once student and teacher are measured.

        Raises:
          ExperimentError: the teacher is near chance, or far below the student as it came.
        """
        top1, student, most_frequent = self.found["teacher"], self.found["student"], self._most_frequent()
        seen = f"the teacher is right on {top1:.2f} % of {len(self._labels):,} validation images"
        remedy = (
            "check its weights, its pixels (--teacher_pixel_mean, --teacher_pixel_std) and the order of its classes, "
            "or accept it with --allow_weak_teacher"
        )
        # Few images of uneven classes: a teacher that knows the rare ones may be right no more often than one class is.
        by_class = self.balanced.get("teacher", 0.0) if len(self._labels) < FEW_VALIDATION else 0.0
        require(
            top1 > near_chance(most_frequent) or by_class > balanced_by_chance(np.bincount(self._labels)),
            f"{seen}, while always giving the same class is right on {most_frequent:.2f} %; {remedy}",
        )
        require(top1 >= student - POINTS_BELOW, f"{seen}, the student before training on {student:.2f} %; {remedy}")


def near_chance(most_frequent: float) -> float:
    """Top-1 in percent up to which a network has learned hardly anything: a tenth of the way from chance to 100 %.

    Args:
      most_frequent: share of the most frequent class, in percent: the top-1 of always giving that class.
    """
    return most_frequent + 0.1 * (100 - most_frequent)


def by_chance(most_frequent: float, num_images: int) -> float:
    """`near_chance`, or on few images two standard deviations above always giving the most frequent class.

    At most half of the way to 100 %: so few images prove nothing against a network.
    """
    deviation = math.sqrt(most_frequent * (100 - most_frequent) / num_images)
    return max(near_chance(most_frequent), min(most_frequent + 2 * deviation, (most_frequent + 100) / 2))


def balanced_by_chance(class_sizes: np.ndarray) -> float:
    """The mean over classes of right answers, in percent, that guessing rarely exceeds; see `balanced_by_guessing`."""
    return max(near_chance(100 / np.count_nonzero(class_sizes)), balanced_by_guessing(class_sizes))


TITLES = {
    "student": "student before training",
    "estimated": "student with BatchNormalization statistics of training pictures",
    "quantized": "student after calibration",
    "teacher": "teacher before training",
}
