"""A better start noise for the prompt: NPNet and its training, Re-denoise."""
