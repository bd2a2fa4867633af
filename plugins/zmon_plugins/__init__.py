"""The plugins that come with zmon: metrics/ holds one metric family a file, sinks/ one sink a file."""
