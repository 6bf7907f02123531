"""What may be given for `callbacks`."""

import pytest
import tf_keras

from qkd_tf.distillation.listeners import listener_of
from qkd_tf.experiment import ExperimentError


class Listening:
    def __init__(self):
        self.heard = []

    def on_epoch_end(self, phase, epoch, logs=None):
        self.heard.append((phase, epoch, dict(logs)))
        logs.clear()  # which another one must not see


def test_function_object_and_several_of_both_are_told_each_with_logs_of_its_own():
    first, second, heard = Listening(), Listening(), []
    for callbacks in (first, [first, second], lambda *told: heard.append(told), (), None):
        listener_of(callbacks)("tutoring", 2, {"student_loss": 0.5})
    told = ("tutoring", 2, {"student_loss": 0.5})
    assert (first.heard, second.heard, heard) == ([told, told], [told], [told])


@pytest.mark.parametrize(
    "callback, name",
    [
        (tf_keras.callbacks.CSVLogger("log.csv"), "CSVLogger"),
        (print.__name__, "str"),
        (lambda epoch, logs: None, "<lambda>"),
        (object(), "object"),
        (3, "int"),
    ],
)
def test_what_cannot_be_called_so_is_refused_by_its_name(callback, name):
    with pytest.raises(ExperimentError, match=rf"callback {name} cannot be called as on_epoch_end\(phase, epoch, logs"):
        listener_of([callback])
