"""Delivery: reports to sinks, in order, until each has them."""
