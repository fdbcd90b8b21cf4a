"""What several targets share; it knows none of them."""
