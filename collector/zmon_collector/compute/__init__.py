"""Compute: metrics over micro-batches, merged, checkpointed and finished as windows close."""
