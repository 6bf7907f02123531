"""The pre-flight: the command, and the look at the networks, which needs TensorFlow."""
