"""Concepts: subjects taught through weights, each with its prompt and its place. The wire."""

from dataclasses import dataclass

import torch
from comfy_api.latest import io

Concepts = io.Custom("PERSONALIZATION_CONCEPTS")


@dataclass(frozen=True, eq=False)
class Concept:
    """One subject: the MODEL that knows it, what to say to that, and where it stands (H, W)."""

    model: object
    positive: list
    word: str = ""
    strength: float = 1.0
    negative: list | None = None
    mask: torch.Tensor | None = None


def concept_label(number, word):
    """What a concept is called in messages."""
    return f'concept {number} ("{word}")' if word else f"concept {number}"
