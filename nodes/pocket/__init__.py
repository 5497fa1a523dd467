"""The pocket model and what was trained for it: code, weights and model card."""
