"""Plugins that come with zmon: metrics/ holds one family of metrics per file, sinks/ one sink per file."""
