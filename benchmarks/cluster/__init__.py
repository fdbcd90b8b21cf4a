"""Three hosts on one machine, and clients that go on asking: what scale_faults is made of."""
