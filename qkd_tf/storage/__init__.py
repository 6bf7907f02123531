"""What is on disk: written whole or not at all, and read as a stranger's."""
