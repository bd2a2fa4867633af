"""Delivery: reports to sinks and other readers, in order, until each has handled them."""
