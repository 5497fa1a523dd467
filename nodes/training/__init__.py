"""Training: what the pack's techniques read, made from pictures inside the graph."""
