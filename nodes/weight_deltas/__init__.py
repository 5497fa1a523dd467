"""Weight files that the host misreads: KronA, Custom Diffusion."""
