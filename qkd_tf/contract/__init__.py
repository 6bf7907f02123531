"""What training and export agree upon: integers and their meaning, how runtimes round, what devices take."""
