"""The soak of the collector: its agents, its plugins, and the watch over its progress."""
