"""Networks by what a user calls them: of the zoo, by a builder of their own, saved by tf_keras, or in memory."""

import tf_keras

from qkd_tf.experiment import NetworkSpec
from qkd_tf.models import own, weights, zoo
from qkd_tf.quantization.standard_form import standard_form


def check_name(network: NetworkSpec, flag: str) -> None:
    """Raises ExperimentError for a name that is none of the zoo, and no user's own model."""
    if not network.is_own:
        zoo.check_name(network.name, flag)


def build_student(
    network: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int, given: tf_keras.Model | None = None
) -> tuple[tf_keras.Model, list[str]]:
    """A float network in standard form, with its first weights, and what a user should know.

    Args:
      given: the model itself, where Python hands it over; it is left as it is.

    Raises:
      ExperimentError: weights that do not fit, or a layer that has no place in an integer .tflite.
    """
    model, notes = _build(network, input_shape, num_classes, given)
    known = not (network.is_saved or network.is_in_memory and network.has_weights)
    trained = network.weights_normalization or (network.normalization if known else None)
    student, more = standard_form(model, input_shape, trained, network.normalization)
    return student, notes + more


def build_teacher(
    network: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int, given: tf_keras.Model | None = None
) -> tuple[tf_keras.Model, list[str]]:
    """A float network from pixels to logits, of any layers; as `build_student` else."""
    model, notes = _build(network, input_shape, num_classes, given)
    return (own.with_logits(model, network.normalization) if network.is_own else model), notes


def _build(network: NetworkSpec, input_shape, num_classes: int, given) -> tuple[tf_keras.Model, list[str]]:
    if network.is_own:
        return own.build(network, input_shape, num_classes, given), []
    model = zoo.build(network, input_shape, num_classes)
    return model, weights.load(model, network) if network.weights else []
