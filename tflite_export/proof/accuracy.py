"""Whether a file is worse than the student in floating point, or only different: a paired test on the same images."""

import numpy as np

from qkd_tf.contract.chance import chance


def paired(logits: np.ndarray, student: np.ndarray, labels: np.ndarray) -> dict:
    """Compares a file with the student on the same images.

    Args:
      logits, student: [N, ..., K] integers; labels: [N, ...]. Where logits are a map, an image has many answers, and
        counts for whom gets more of them right.

    Returns:
      `num_images`; `top1` and `student_top1` in percent; `only_file_right` and `only_student_right`, the numbers of
      images on which one is right and the other is not; and `p`, see `chance`.
    """
    right, student_right = ((np.argmax(x, axis=-1) == labels).reshape(len(labels), -1) for x in (logits, student))
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
