"""--class_weights as a user says them, against scikit-learn's for balanced ones."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from qkd_tf.experiment import ExperimentError, TrainingSpec, class_weights

NAMES = ["ant", "bee", "cat"]


def weights(*told, names=NAMES, numbers=(5, 1, 2)):
    return class_weights(told, names, lambda: numbers)


def test_balanced_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], (5, 1, 2))
    np.testing.assert_allclose(weights("balanced"), compute_class_weight("balanced", classes=np.arange(3), y=labels))


def test_balanced_leave_a_class_without_examples_out():
    assert weights("balanced", numbers=(3, 0, 1)) == [4 / 6, 1.0, 2.0]


@pytest.mark.parametrize(
    "told, expected",
    [
        ((), None),
        (("1", "2", "0.5"), [1.0, 2.0, 0.5]),
        (("cat:3",), [1.0, 1.0, 3.0]),
        (("2:3", "ant:0"), [0.0, 1.0, 3.0]),
    ],
)
def test_weights_are_by_label_name_or_number(told, expected):
    assert weights(*told) == expected


def test_name_may_have_a_colon_or_be_the_classs_own_number():
    assert weights("a:b:2", names=["a:b", "c"]) == [2.0, 1.0]
    assert weights("1:2", names=["0", "1"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    "told, names, message",
    [
        (("1", "2"), NAMES, "--class_weights has 2 numbers and there are 3 classes"),
        (("dog:1",), NAMES, "--class_weights has the unknown class 'dog'; known are ant, bee, cat"),
        (("3:1",), NAMES, "--class_weights has the unknown class '3'; known are"),
        (("bees:1",), NAMES, "--class_weights has the unknown class 'bees'; did you mean bee[?]"),
        (("cat:1", "2:3"), NAMES, "--class_weights has the class cat twice"),
        (("1:2",), ["1", "2"], "may mean the class 1 or class number 1, 2"),
    ],
)
def test_weights_of_other_classes_are_refused(told, names, message):
    with pytest.raises(ExperimentError, match=message):
        weights(*told, names=names)


@pytest.mark.parametrize(
    "told, message",
    [
        (("even",), "--class_weights has 'even' as a weight; 'balanced', one number per class"),
        (("balanced", "1"), "--class_weights has 'balanced' as a weight"),
        (("-1", "1"), "--class_weights has -1; 0 or a positive, finite number"),
        (("cat:inf",), "--class_weights has inf; 0 or"),
        (("1", "cat:2"), "--class_weights=1,cat:2: 'balanced', one number"),
        (("0", "0.0"), "--class_weights are 0 for every class"),
    ],
)
def test_what_is_no_weight_is_refused_before_the_classes_are_known(told, message):
    with pytest.raises(ExperimentError, match=message):
        TrainingSpec(phases=(), class_weights=told)
