"""Whether a classifier is better than another on the same examples, or than guessing, by more than chance."""

import math

import numpy as np


def chance(worse: int, better: int) -> float:
    """The probability of at least `worse` heads in `worse + better` tosses of a coin.

    McNemar's exact test, one-sided. Images on which both are right, or both wrong, say nothing. On any other image,
    either of two equally good networks is as likely to be right.
    """
    num_tosses = worse + better
    term = total = math.comb(num_tosses, worse)
    for heads in range(worse, num_tosses):
        term = term * (num_tosses - heads) // (heads + 1)
        total += term
    return total / 2**num_tosses


def paired(answers: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict:
    """Compares the classes that a file gives with those of the student, or of another reference, on the same images.

    Args:
      answers, reference, labels: [N, ...] classes. If they are maps, an image has many answers, and counts for the side
        that gets more of them right.

    Returns:
      `num_images`; `top1` and `student_top1` in percent; `only_file_right` and `only_student_right`, the numbers of
      images on which one is right and the other is not; and `p`, see `chance`.
    """
    right, student_right = ((found == labels).reshape(len(labels), -1) for found in (answers, reference))
    lead = right.sum(axis=1) - student_right.sum(axis=1)
    better, worse = int(np.sum(lead > 0)), int(np.sum(lead < 0))
    return {
        "num_images": len(labels),
        "top1": 100.0 * float(np.mean(right)),
        "student_top1": 100.0 * float(np.mean(student_right)),
        "only_file_right": better,
        "only_student_right": worse,
        "p": chance(worse, better),
    }


def balanced_by_guessing(class_sizes: np.ndarray) -> float:
    """The mean over classes of right answers, in percent, that guessing exceeds by two standard deviations at most.

    Args:
      class_sizes: number of images of each class; classes without any do not count.
    """
    sizes = class_sizes[class_sizes > 0]
    share = 1 / len(sizes)
    deviation = math.sqrt(share * (1 - share) * np.sum(1 / sizes)) / len(sizes)
    return 100 * (share + 2 * deviation)
