"""Mutants: small faults planted in the rooms that must not be wrong, to see whether a test finds them."""
