"""What training and export agree on: integers and their meaning, how runtimes round, what devices take."""
