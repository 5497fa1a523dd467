"""Model folders, safe reading, writing new files, names in LoRA files, pictures of the pack."""
