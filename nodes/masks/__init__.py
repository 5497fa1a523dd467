"""Masks that need no painting: a box, the shape at a point of a picture."""
