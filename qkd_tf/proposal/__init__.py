"""A flag file for the user's own networks and data: what is seen of both, and what is chosen for the rest."""
