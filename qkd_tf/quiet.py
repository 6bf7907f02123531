"""TensorFlow, imported without its chatter.

A command imports this module before any that imports TensorFlow:

    from qkd_tf import quiet  # isort: split
"""

from absl import logging

from qkd_tf.chatter import quiet

with quiet():
    import tensorflow

# Notes of Python's side, too; --verbosity=0 lets them through.
logging.set_verbosity(logging.ERROR)
tensorflow.get_logger().setLevel("ERROR")
