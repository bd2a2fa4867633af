"""From rows to acknowledgements: ring, sockets, the background thread. Private to zmon."""
