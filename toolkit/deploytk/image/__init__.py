"""Stage 5: Bundle -> Image."""
