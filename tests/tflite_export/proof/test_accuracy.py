"""The paired test, by hand."""

import numpy as np

from tflite_export.proof.accuracy import paired


def one_hot(*classes):
    return 10 * np.eye(3, dtype=np.int8)[list(classes)]


def test_images_that_one_alone_gets_right_are_counted():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = paired(one_hot(0, 1, 1, 1, 1, 2, 0, 0), one_hot(0, 0, 0, 0, 0, 2, 0, 1), labels)
    assert found == {
        "num_images": 8,
        "top1": 25.0,
        "student_top1": 50.0,
        "only_file_right": 1,
        "only_student_right": 3,
        "p": 5 / 16,  # 3 or 4 heads of 4
    }


def test_an_image_of_many_answers_counts_once():
    """A map of two answers: the student has one more right on the first image, as many on the second."""
    labels = np.array([[0, 0], [1, 1]])
    file, student = one_hot(0, 1, 1, 0).reshape(2, 2, 3), one_hot(0, 0, 0, 1).reshape(2, 2, 3)
    found = paired(file, student, labels)
    assert (found["only_student_right"], found["only_file_right"], found["num_images"]) == (1, 0, 2)
    assert (found["top1"], found["student_top1"]) == (50.0, 75.0)


def test_one_label_serves_a_whole_map():
    found = paired(
        one_hot(0, 1, 1, 1).reshape(2, 1, 2, 3),
        one_hot(0, 0, 1, 1).reshape(2, 1, 2, 3),
        np.array([0, 1]).reshape(2, 1, 1),
    )
    assert (found["only_student_right"], found["only_file_right"], found["top1"]) == (1, 0, 75.0)
