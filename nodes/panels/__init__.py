"""Pictures as the tiles of one picture, and pictures ranked by CLIP."""
