"""Jobs: what runs over files or by itself, without a collector: backfill, push, the demonstration."""
