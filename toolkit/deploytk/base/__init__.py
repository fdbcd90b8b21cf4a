"""What every stage builds on: errors, files, settings, processes."""
