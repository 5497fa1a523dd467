"""What one Multi-Reference Self-Attention node is set to, and how it joins a MODEL."""

from dataclasses import dataclass

from ..host.attach import attach
from ..host.blocks import CHOICES, attention_blocks, chosen_blocks, unet_of
from ..host.choices import check_listed, check_number
from ..references.reference_views import any_connected
from .mrsa import MRSA
from .reference_branch import JOINT, STRONGEST
from .reference_rows import rows_of, with_tokens
from .reference_settings import ReferenceSettings
from .second_unet import second_unet

# Beyond this a weight only makes softmax one-hot (FreeCustom uses 1 to 3).
WEIGHT_LIMIT = 20.0


@dataclass(frozen=True)
class MRSASettings(ReferenceSettings):
    """Settings of one Multi-Reference Self-Attention node. Raises ValueError for what is no number or no choice."""

    weight: float = 3.0  # added to the logits of kept tokens, 0 is off
    blocks: str = "published"  # one of host.blocks.CHOICES
    custom_blocks: str = ""  # attention indices, for blocks "custom"

    def __post_init__(self):
        super().__post_init__()
        check_listed("blocks", self.blocks, CHOICES)
        check_number("weight", self.weight)


def attach_mrsa(model, clip, vae, references, settings, reference_model=None):
    """The MODEL with the references in its self-attention; the MODEL itself where nothing would change.

    references: tuple of References; reference_model: the MODEL whose UNet reads them (BootPIG), if it is another one.
    Raises ValueError for inputs it cannot work with.
    """
    unet = unet_of(model, MRSA.label)
    levels = attention_blocks(unet)
    blocks = {block: levels[block] for block in chosen_blocks(unet, settings.blocks, settings.custom_blocks)}
    other = second_unet(model, reference_model)
    if not any_connected(references) or (settings.weight == 0 and other is None):
        return model
    # what a UNet of its own has learnt to say needs no emphasis
    weight = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, settings.weight)) if other is None else 0.0
    rows = with_tokens(rows_of(model, clip, vae, references, weight), blocks)
    if not rows:
        return model
    joining = JOINT if other is None else STRONGEST
    return attach(model, MRSA((settings.member(rows, references, blocks, joining=joining, other=other),)))
