"""One subject's masks in many pictures: SAM files, PerSAM."""
