"""The three phases of QKD: losses, rows, mechanism, time."""
