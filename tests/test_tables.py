"""The words that an Experiment accepts are the rows of the tables that obey them."""

import pytest

from qkd_tf import experiment
from qkd_tf.contract import grid
from qkd_tf.distillation import mixed_precision, phase_setup, phases
from qkd_tf.quantization import calibration, quantizers


def test_words_of_the_experiment_are_the_rows_of_the_tables():
    assert set(experiment.PHASES) == set(phases.PHASES)
    assert set(experiment.PRECISIONS) == {"float32", *mixed_precision.REWRITES}
    assert set(experiment.OPTIMIZERS) < set(experiment.OF_INTERVALS) == set(phase_setup.OPTIMIZERS)
    assert set(experiment.INTERVAL_INITS) == set(calibration.INITS)
    assert set(experiment.INTERVAL_GRADIENT_SCALES) == set(quantizers.INTERVAL_GRADIENT_SCALES)


def test_phases_that_need_a_teacher_are_those_that_distill():
    assert set(experiment.TEACHER_PHASES) == {name for name, phase in phases.PHASES.items() if phase.distills}


def test_bit_widths_of_the_experiment_are_those_of_the_grid():
    for num_bits in (grid.MIN_BITS, grid.MAX_BITS):
        experiment.QuantizationSpec(weight_bits=num_bits)
    for num_bits in (grid.MIN_BITS - 1, grid.MAX_BITS + 1):
        with pytest.raises(experiment.ExperimentError):
            experiment.QuantizationSpec(weight_bits=num_bits)
