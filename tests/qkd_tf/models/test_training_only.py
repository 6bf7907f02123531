"""What does nothing at inference, and what is said of it."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.models import normalization, training_only
from qkd_tf.quantization.student_reading import notes_on_unused


@pytest.mark.parametrize("name", training_only.STAND_INS)
def test_stand_in_passes_pictures_on_and_is_told_by_its_name(name):
    layer = training_only.STAND_INS[name](name="mine")
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    for training in (False, True):
        np.testing.assert_array_equal(layer(pictures, training=training), pictures)
    assert normalization.is_nothing(layer)
    (note,) = notes_on_unused([layer])
    assert note.startswith(
        f"note: the student's augmentation layers are used neither in training nor in the file: mine ({name}); "
    )


@pytest.mark.parametrize("first", [layers.Rescaling(1 / 255), layers.Conv2D(2, 1)], ids=["normalises", "does not"])
def test_stand_in_before_the_normalization_hides_nothing(first):
    pixels = tf_keras.Input((4, 4, 3))
    model = tf_keras.Model(pixels, first(training_only.STAND_INS["RandomShear"]()(pixels)))
    assert normalization.normalizes(model) == isinstance(first, layers.Rescaling)
