"""The collector: receives what publishers send, closes windows, computes metrics, hands reports to sinks."""
