"""Who computes a graph: the runtimes, and their arithmetic in NumPy."""
