"""The training: the command, and its job, which needs TensorFlow."""
