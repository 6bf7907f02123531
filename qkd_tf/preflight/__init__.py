"""The pre-flight: the command, and the check of the networks, which needs TensorFlow."""
