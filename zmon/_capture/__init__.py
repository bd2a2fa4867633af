"""Turns the arguments of `publish` into columns. Private to zmon; README.md says what lives here."""
