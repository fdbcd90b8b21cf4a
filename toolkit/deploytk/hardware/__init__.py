"""What a GPU is by name, and what the one in this machine says of itself."""
