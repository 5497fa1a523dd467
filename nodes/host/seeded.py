"""Noise that depends on a name alone, the same on every machine."""

import hashlib

import torch

# How many seeds the host's widgets have.
SEEDS = 1 << 64


def seeded_noise(name, shape):
    """Gaussian noise of unit variance, float32 on the CPU, drawn from a generator of its own for each name."""
    return torch.randn(shape, generator=_generator(name))


def seeded_shares(name, shape):
    """Numbers in 0..1, all equally likely, float32 on the CPU; as above."""
    return torch.rand(shape, generator=_generator(name))


def _generator(name):
    key = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)
