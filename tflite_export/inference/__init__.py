"""Computes a graph: on the runtimes, and with their arithmetic in NumPy."""
