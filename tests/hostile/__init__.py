"""Attacks on a real collector, each with a good publisher beside it."""
