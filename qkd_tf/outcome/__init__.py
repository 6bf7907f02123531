"""What a run leaves behind: the handoff to the exporter, results, and what they are explained by."""
