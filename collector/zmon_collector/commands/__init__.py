"""The commands of `zmon`, one a file; cli.py gathers them."""
