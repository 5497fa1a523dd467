"""DreamTuner's self-subject attention (arXiv 2312.13691, section 3.3): one subject, softly, at every self-attention."""

import math

from ..host.attach import attach
from ..host.blocks import attention_blocks, unet_of
from ..references.reference_views import any_connected
from .mrsa import MRSA
from .reference_rows import rows_of, with_tokens


def attach_dreamtuner(model, clip, vae, references, settings, omega):
    """The MODEL with the references in all of its self-attentions, their tokens weighted by `omega`; the MODEL itself
    where nothing would change.

    It is MRSA with the weight ln omega, on both sides, with masks that come to each grid bilinearly; settings:
    ReferenceSettings. Raises ValueError for inputs it cannot work with.
    """
    blocks = attention_blocks(unet_of(model, "DreamTuner"))
    if not any_connected(references) or omega == 0:
        return model
    own = settings.text == "own"
    rows = with_tokens(rows_of(model, clip, vae, references, math.log(omega), own, bilinear=True), blocks)
    return attach(model, MRSA((settings.member(rows, references, blocks),))) if rows else model
