import numpy as np
import pytest
import tf_keras

from qkd_tf import networks
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization
from qkd_tf.models import zoo

PIXELS = PixelNormalization((128.0,), (64.0,))


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "mobilenet_v2_0.35_cifar"])
def test_network_of_the_zoo_is_in_standard_form_already(name):
    tf_keras.utils.set_random_seed(3)
    expected = zoo.build(NetworkSpec(name, PIXELS), (32, 32, 3), 10)
    tf_keras.utils.set_random_seed(3)
    student, notes = networks.build_student(NetworkSpec(name, PIXELS), (32, 32, 3), 10)
    assert notes == []
    assert [layer.name for layer in student.layers] == [layer.name for layer in expected.layers]
    for ours, theirs in zip(student.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_unknown_name_is_refused_but_paths_and_builders_are_looked_at_later():
    with pytest.raises(ExperimentError, match="unknown --student 'resnet21'"):
        networks.check_name(NetworkSpec("resnet21", PIXELS), "--student")
    for name in ("mine:build", "mine.keras", "./saved", "resnet20"):
        networks.check_name(NetworkSpec(name, PIXELS), "--student")


def test_saved_student_without_normalization_must_be_explained(tmp_path):
    pixels = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.Conv2D(4, 3)(pixels))
    tf_keras.Model(pixels, tf_keras.layers.Dense(5)(x)).save(tmp_path / "saved.keras")
    name = str(tmp_path / "saved.keras")
    with pytest.raises(ExperimentError, match="--student_weights_mean"):
        networks.build_student(NetworkSpec(name, PIXELS), (8, 8, 3), 5)
    student, _ = networks.build_student(NetworkSpec(name, PIXELS, weights_normalization=PIXELS), (8, 8, 3), 5)
    assert student.output_shape == (None, 5)
