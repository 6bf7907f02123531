"""Learned-interval quantization of Keras models."""
