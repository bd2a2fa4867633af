"""Windows: which one a row belongs to, when it closes, what it counts. Pure."""
