"""Ingest: from the sockets to a decision about every row."""
