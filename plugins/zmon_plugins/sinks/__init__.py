"""Built-in sinks, one a file; found by walking this folder."""
