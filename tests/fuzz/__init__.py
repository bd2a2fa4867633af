"""Fuzzing of every decoder of bytes from a peer: ``make fuzz SECONDS=60``."""
