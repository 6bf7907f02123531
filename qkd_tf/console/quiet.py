"""TensorFlow, imported without its chatter.

A command imports this module before any that imports TensorFlow; no module that a user's program imports may do so. The
import is in `main`, after all checks that need no TensorFlow, or at the top of the command's module:

    if __name__ == "__main__":
        from qkd_tf.console import quiet

    # isort: split
"""

from absl import flags, logging

from qkd_tf.console.chatter import quiet, raise_threshold

raise_threshold()
with quiet():
    import tensorflow

# Notes of Python's side, too; --verbosity=0 lets them through.
if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)
tensorflow.get_logger().setLevel("ERROR")
