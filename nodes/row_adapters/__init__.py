"""Adapters per row of a batch, and concepts that need weights of their own."""
