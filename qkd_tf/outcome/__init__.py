"""What a run leaves behind: the handoff to the exporter, its results, and a diagnosis."""
