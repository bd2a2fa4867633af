"""Written files to Anodot's API, once: written (read) → plan (order) → run (send) ← done (what was dealt with)."""
