"""Delivers rows until they are acknowledged. Private to zmon; README.md says what lives here."""
