"""The process that trains: its memory, devices, random state and signals."""
