"""The graph of integer tensors, and its conversion to and from a .tflite file."""
