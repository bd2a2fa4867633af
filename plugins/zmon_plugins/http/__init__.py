"""The HTTP client of Anodot's API and of notifications: response → client."""
