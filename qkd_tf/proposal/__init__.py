"""Proposes a flag file for a user's own networks and data, from what it sees of both."""
