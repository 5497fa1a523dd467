"""Weight files that the host's LoRA loaders misread: KronA, and keys and values of Custom Diffusion."""
