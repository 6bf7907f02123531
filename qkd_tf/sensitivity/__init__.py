"""Which layers of a trained student tolerate few bits."""
