"""``zmon backfill``: the series that a collector would have written, over history. See docs/architecture.md."""
