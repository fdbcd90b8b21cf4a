"""Stage 6: Bundle -> Release."""
