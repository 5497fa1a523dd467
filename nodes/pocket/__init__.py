"""The pocket model: a small checkpoint that comes with the pack."""
