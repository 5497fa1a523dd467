"""What the UNet reads beside its latent, as the host makes it of a conditioning."""

import torch
from support.models import tiny_adm, tiny_model
from support.references import draw

from pack.nodes.host.unet_inputs import unet_inputs


def test_a_wide_picture_is_wide():
    """SDXL is told the size: the height first, from the latent unless the conditioning says otherwise."""
    base, context, pooled = tiny_model("sdxl").model, draw(1, 7, 48), draw(1, 40, seed=1)
    inputs = unet_inputs(base, context, {"pooled_output": pooled}, torch.zeros(1, 4, 8, 16))
    assert torch.equal(inputs.y, tiny_adm(pooled_output=pooled, height=64, width=128))
    assert torch.equal(inputs.context, context)
    said = {"pooled_output": pooled, "width": 512, "height": 256}
    assert torch.equal(
        unet_inputs(base, context, said, torch.zeros(1, 4, 8, 16)).y,
        tiny_adm(pooled_output=pooled, height=256, width=512),
    )
