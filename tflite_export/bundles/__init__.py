"""What goes to an engineer with a file that passed."""
