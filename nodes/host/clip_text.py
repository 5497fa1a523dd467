"""Prompts that a node encodes itself, with the CLIP it is given."""

from .messages import input_error


def tokenized(clip, text):
    """The tokens of a text, as the host's CLIP hands them out."""
    check_clip(clip)
    return clip.tokenize(text)


def check_clip(clip):
    """ValueError where no CLIP came."""
    if clip is None:
        raise input_error(
            "clip is empty: this checkpoint has no text encoder; load one with a CLIP loader and connect it"
        )


def encoded_once(clip, text):
    """As `encoded`; ValueError for a CLIP that encodes a text several times, for parts of sampling."""
    several = clip.encode_from_tokens_scheduled(tokenized(clip, text))
    if len(several) > 1:
        raise input_error(
            f"this clip has hooks with keyframes, so it encodes a text {len(several)} times, but it must encode it "
            "once here; connect a clip without keyframes"
        )
    return several[0]


def encoded(clip, text):
    """The conditioning of a text: (cross_attn (1, L, D), the dictionary of its other values)."""
    tokens = tokenized(clip, text)
    tensor, values = clip.encode_from_tokens_scheduled(tokens)[0]
    return tensor, values
