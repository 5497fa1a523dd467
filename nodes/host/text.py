"""Prompts that a node encodes itself, with the CLIP it is given."""

from .say import refusal


def encoded(clip, text):
    """The conditioning of a text: (cross_attn (1, L, D), the dictionary of its other values)."""
    if clip is None:
        raise refusal(
            "clip is empty: this checkpoint holds no text encoder; load one with a CLIP loader and connect it"
        )
    tensor, values = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0]
    return tensor, values
