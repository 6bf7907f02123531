"""What a person at a terminal sees: flags, quiet libraries, HTML pages."""
