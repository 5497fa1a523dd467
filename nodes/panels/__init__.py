"""Panels: pictures as tiles of one picture whose free tile an inpainting model fills; pictures ranked by CLIP."""
