"""The demonstration: a real model in two processes, a collector in a third, and what one sees of it."""
