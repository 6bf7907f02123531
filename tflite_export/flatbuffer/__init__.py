"""The graph of integer tensors, and its .tflite file, both ways."""
