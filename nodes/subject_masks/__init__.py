"""One subject's masks in many pictures, from its mask in one of them (PerSAM)."""
