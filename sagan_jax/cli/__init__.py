"""The commands, and the Python that does what they do."""
