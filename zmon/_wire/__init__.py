"""The wire format: encodes and decodes frames and control messages. Private to zmon; README.md says what lives here."""
