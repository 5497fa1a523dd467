"""Add Reference and Preview References; the pictures of subjects as a model will see them."""
