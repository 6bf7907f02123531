"""The three phases of QKD: losses, the table of phases, the training step, the trainer."""
