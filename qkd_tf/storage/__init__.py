"""Files on disk: written completely or not at all, and never trusted when they are read."""
