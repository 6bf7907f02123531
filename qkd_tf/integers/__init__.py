"""Integers and their meaning, and how each runtime rounds: what training and export share."""
