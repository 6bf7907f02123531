"""Adam for intervals, whose sizes differ by orders of magnitude."""

import tensorflow as tf
import tf_keras


class RelativeAdam(tf_keras.optimizers.Adam):
    """Adam (Kingma and Ba 2014) whose steps are shares of the variable.

    At a rate of 0.01 a variable changes by about 1 % in a step, whatever its size and that of its gradient.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        before = tf.identity(variable)
        super().update_step(gradient, variable)
        variable.assign(before + tf.abs(before) * (variable - before))
