"""The files that go to an engineer with a file that passed."""
