"""``zmon demo``: a real model in two processes, a collector in a third, and a summary of what it saw."""
