"""Learning rates over the steps of a phase."""

import tensorflow as tf
import tf_keras


class CosineDecayFrom(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from `rate` to 0 over `steps` steps (SGDR without restarts), of which `steps_before` are done.

    Args:
      rate: the rate at the cosine's own first step.
      steps: number of steps of the whole cosine.
      steps_before: steps of earlier phases, if phases share a cosine.
    """

    def __init__(self, rate: float, steps: int, steps_before: int = 0):
        self._whole = tf_keras.optimizers.schedules.CosineDecay(rate, steps)
        self._steps_before = steps_before

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return self._whole(step + self._steps_before)

    def get_config(self) -> dict:
        whole = self._whole.get_config()
        return {
            "rate": whole["initial_learning_rate"],
            "steps": whole["decay_steps"],
            "steps_before": self._steps_before,
        }
