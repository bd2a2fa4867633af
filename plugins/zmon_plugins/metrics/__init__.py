"""Built-in metrics, one family a file; found by walking this folder."""
