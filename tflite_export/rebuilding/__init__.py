"""From the handoff to the graph that the file must hold."""
