"""Dashboard: the history and the live page."""
