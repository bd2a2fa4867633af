"""From what a service has in hand to columns: private to zmon."""
