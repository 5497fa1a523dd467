"""Files: the host's model folders, safe reading, writing once, names in LoRA files, pictures of the pack."""
