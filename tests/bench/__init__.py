"""Measurements, side by side in one run: `make bench`. Ratios travel; absolute times of a noisy machine do not."""
