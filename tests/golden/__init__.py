"""What releases wrote, kept for good: whatever comes after must read it. One folder a release."""
