"""From the handoff to the graph that the file has to hold."""
