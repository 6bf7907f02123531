import pytest
import tf_keras

from qkd_tf.models.keras3.layers import LAYERS as CONVERTED
from qkd_tf.models.remedies import REMEDIES
from qkd_tf.quantization.roles import LAYERS as QUANTIZED

NEWCOMERS = "LSTM Bidirectional MultiHeadAttention Attention Embedding TimeDistributed Conv1DTranspose Conv3D Maximum"
OF_CODE = {"TFOpLambda", "SlicingOpLambda", "ClassMethod"}  # what TensorFlow's functions become in a graph
OF_KERAS_3 = {"GroupQueryAttention", "RMSNormalization"}


@pytest.mark.parametrize("kind", NEWCOMERS.split())
def test_layer_that_newcomers_bring_has_a_remedy(kind):
    assert REMEDIES[kind]


def test_remedies_are_for_layers_of_keras_that_no_integer_file_has():
    kinds = REMEDIES.keys() - OF_CODE
    assert {kind for kind in kinds if not hasattr(tf_keras.layers, kind)} == OF_KERAS_3
    assert not kinds & {kind.__name__ for kind in QUANTIZED}
    assert not OF_KERAS_3 & CONVERTED.keys()


def test_keras_3_has_what_tf_keras_lacks():
    layers = pytest.importorskip("keras").layers
    assert all(hasattr(layers, kind) for kind in OF_KERAS_3)
