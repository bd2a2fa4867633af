"""``zmon backfill``: compute from files the series that a collector would have written. See docs/architecture.md."""
