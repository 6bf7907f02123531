"""Whether a file is what was trained."""
