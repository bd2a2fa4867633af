"""The wire format: frames and control messages. Private to zmon; docs/wire.md describes it."""
