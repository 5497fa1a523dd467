"""Masks without painting: Box Mask, Layout Mask, Find Concepts."""
