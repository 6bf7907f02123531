"""Finds out on which pixels a network's weights were trained, from the network itself or from its answers."""

import dataclasses

import numpy as np

from qkd_tf.experiment import PixelNormalization
from qkd_tf.outcome.start import by_chance
from qkd_tf.proposal.draft import Draft
from qkd_tf.proposal.network_look import RANGES, NetworkLook, clear_range

FLAGS = {"student": "student_weights", "teacher": "teacher_pixel"}  # beginning of two flags, by role
NOTABLE_POINTS = 3.0  # of top-1 on training examples by which a teacher below its student is noted
SUITED = PixelNormalization((128.0,), (64.0,))  # to 8 bits: what networks of this package read


@dataclasses.dataclass(frozen=True)
class PixelFinding:
    """What was found out about a network and its pixels.

    Attributes:
      lines: what to print, one per line.
      undecided: what the user has to decide before training; "" for nothing.
      assumed: flags, as typed, with which the pre-flight can check the rest meanwhile.
      top1: share of training examples that a trained network classifies correctly, in %; None if not known.
    """

    lines: list[str]
    undecided: str = ""
    assumed: tuple[str, ...] = ()
    top1: float | None = None


def choose_pixels(draft: Draft, look: NetworkLook, images: np.ndarray, labels: np.ndarray) -> PixelFinding:
    """Writes into a draft on which pixels a network's weights were trained, if a flag has to say so.

    Args:
      images, labels: training examples [N, H, W, C] uint8, [N].
    """
    flag, line = FLAGS[look.role], f"{look.role}: {look.name}, {'' if look.is_trained else 'not '}trained"
    if look.is_fed_unknown_pixels:
        return _by_answers(draft, look, line, images, labels)
    if look.normalization:
        line += f"; it normalises pixels itself: {look.normalization}"
        draft.remark(f"{flag}_mean", f"{look.name} normalises pixels itself: {look.normalization}.")
    elif look.has_untrained_file and look.is_fed:
        why = f"{look.name} is not trained yet, so pixels are normalised as suits 8 bits: (pixel - mean) / std."
        _choose(draft, flag, SUITED, why)
    if not look.is_trained or look.subject is None:
        return PixelFinding([line])
    top1 = look.top1(images, labels)
    lines = [f"{line}; it classifies {top1:.1f} % of {len(labels)} training examples correctly"]
    if top1 <= by_chance(100.0 * np.bincount(labels).max() / len(labels), len(labels)):
        is_grey = images.shape[-1] > 1 and np.all(images == images[..., :1])
        lines.append(
            f"note: that is hardly more than chance: was {look.name} trained for these classes, in the order of their "
            "names? A labels.txt gives another order."
            f"{' Was it trained on grey pictures, like these?' if is_grey else ''} If its training was too short for "
            "its BatchNormalization statistics, qkd_tf.train measures them anew"
        )
    return PixelFinding(lines, top1=top1)


def note_on_teacher(student: PixelFinding, teacher: PixelFinding) -> list[str]:
    """A note on a teacher that knows less than its student."""
    if student.top1 is None or teacher.top1 is None or teacher.top1 > student.top1 - NOTABLE_POINTS:
        return []
    return [
        f"note: the teacher classifies {teacher.top1:.1f} % of training examples correctly, the student "
        f"{student.top1:.1f} %: such a teacher rarely helps; train without one, or give a better one"
    ]


def _by_answers(draft: Draft, look: NetworkLook, line: str, images: np.ndarray, labels: np.ndarray) -> PixelFinding:
    """For a trained network that does not say: the range of pixels on which it is right far more often."""
    flag, found = FLAGS[look.role], look.top1_by_range(images, labels)
    answers = ", ".join(f"{top1:.1f} % with {title}" for title, top1 in found.items())
    seen = f"{look.name} does not say which pixels it was trained on; of {len(labels)} training pictures it "
    seen += f"correctly classifies {answers}"
    if clear := clear_range(found):
        _choose(draft, flag, RANGES[clear], f"{seen}.")
        return PixelFinding([line, f"note: {seen}; the flags say {clear}"], top1=found[clear])
    for title in found:
        for name, value in _as_flags(flag, RANGES[title]):
            draft.offer(name, value, f"Uncomment these two if {look.name} reads {title}.")
    undecided = f"{seen}, too close to tell; uncomment the --{flag}_mean and --{flag}_std that are right"
    return PixelFinding([line], undecided, (f"--{flag}_mean=0", f"--{flag}_std=1"))


def _choose(draft: Draft, flag: str, pixels: PixelNormalization, why: str) -> None:
    for name, value in _as_flags(flag, pixels):
        draft.choose(name, value, why)


def _as_flags(flag: str, pixels: PixelNormalization) -> list[tuple[str, list[str]]]:
    return [(f"{flag}_{part}", [f"{value:g}" for value in getattr(pixels, part)]) for part in ("mean", "std")]
