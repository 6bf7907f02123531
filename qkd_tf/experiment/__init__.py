"""An experiment as a value: frozen, checked once, passed down. Standard library only."""

from qkd_tf.contract.origin import IN_MEMORY, TRAINED_IN_MEMORY, UNTRAINED_IN_MEMORY
from qkd_tf.experiment.checks import (
    ExperimentError,
    bit_widths,
    printable,
    require,
    require_bits,
    require_count,
    require_factor,
    require_known,
)
from qkd_tf.experiment.class_folders import has_test
from qkd_tf.experiment.class_weights import class_weights
from qkd_tf.experiment.data import MAX_SIDE, RESIZES, DataSpec, image_size_of
from qkd_tf.experiment.experiment import LEARNING_RATE, RATE_OF_FEW, Experiment
from qkd_tf.experiment.imported import failure, imported
from qkd_tf.experiment.inputs import (
    require_model,
    require_network,
    require_networks,
    require_no_path,
    require_set,
    require_weights,
    set_path,
)
from qkd_tf.experiment.network import (
    NetworkSpec,
    PixelNormalization,
)
from qkd_tf.experiment.option import Option, options
from qkd_tf.experiment.quantization import (
    AUTO_BITS,
    EQUALIZATIONS,
    INTERVAL_GRADIENT_SCALES,
    INTERVAL_INITS,
    UNEVEN_CHANNELS,
    WIDEST_BITS,
    BitsRule,
    QuantizationSpec,
)
from qkd_tf.experiment.target import TargetSpec
from qkd_tf.experiment.training import (
    BATCH_NORM_STATISTICS,
    BITS_TO_TRAIN,
    EPOCHS,
    FEW_PICTURES,
    FEW_VALIDATION,
    FEW_WRONG,
    FLOAT_BITS,
    KEPT_EPOCHS,
    OPTIMIZERS,
    PHASES,
    PRECISIONS,
    STRATEGIES,
    TEACHER_PHASES,
    PhaseSpec,
    TrainingSpec,
    default_phases,
)
from qkd_tf.experiment.zoo import ZOO

__all__ = [
    "AUTO_BITS",
    "BATCH_NORM_STATISTICS",
    "BITS_TO_TRAIN",
    "EPOCHS",
    "EQUALIZATIONS",
    "FEW_PICTURES",
    "FEW_VALIDATION",
    "FEW_WRONG",
    "FLOAT_BITS",
    "INTERVAL_GRADIENT_SCALES",
    "INTERVAL_INITS",
    "IN_MEMORY",
    "KEPT_EPOCHS",
    "LEARNING_RATE",
    "MAX_SIDE",
    "OPTIMIZERS",
    "PHASES",
    "PRECISIONS",
    "RATE_OF_FEW",
    "RESIZES",
    "STRATEGIES",
    "TEACHER_PHASES",
    "TRAINED_IN_MEMORY",
    "UNEVEN_CHANNELS",
    "UNTRAINED_IN_MEMORY",
    "WIDEST_BITS",
    "ZOO",
    "BitsRule",
    "DataSpec",
    "Experiment",
    "ExperimentError",
    "NetworkSpec",
    "Option",
    "PhaseSpec",
    "PixelNormalization",
    "QuantizationSpec",
    "TargetSpec",
    "TrainingSpec",
    "bit_widths",
    "class_weights",
    "default_phases",
    "failure",
    "has_test",
    "image_size_of",
    "imported",
    "options",
    "printable",
    "require",
    "require_bits",
    "require_count",
    "require_factor",
    "require_known",
    "require_model",
    "require_network",
    "require_networks",
    "require_no_path",
    "require_set",
    "require_weights",
    "set_path",
]
