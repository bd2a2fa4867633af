"""Alerts: rules over reports, and the notifications that follow."""
