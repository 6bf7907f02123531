"""The files that an engineer gets with a file that passed."""
