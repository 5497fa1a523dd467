"""Gradients with respect to the latent: memory and half precision."""
