"""Noise that depends on a name alone, the same on every machine."""

import hashlib

import torch


def seeded_noise(name, shape):
    """Gaussian noise of unit variance, float32 on the CPU, drawn from a generator of its own for each name."""
    key = hashlib.blake2b(name.encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)
    return torch.randn(shape, generator=generator)
