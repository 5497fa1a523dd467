"""What the text attentions of a UNet read, changed by hand: what contexts must do, by other means."""

import contextlib

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def every_attention(unet, change):
    """change(number of the block, timestep, context) -> (context, value), at each text attention of the UNet."""
    timestep, handles = [], []

    forward = unet._forward

    def noting(x, timesteps, *args, **kwargs):
        timestep[:] = [float(timesteps[0])]
        return forward(x, timesteps, *args, **kwargs)

    unet._forward = noting
    for index, block in enumerate(m for m in unet.modules() if isinstance(m, BasicTransformerBlock)):

        def swap(module, args, kwargs, index=index):
            context, value = change(index, timestep[0], kwargs["context"])
            return args, {**kwargs, "context": context, "value": value}

        handles.append(block.attn2.register_forward_pre_hook(swap, with_kwargs=True))
    try:
        yield
    finally:
        del unet._forward
        for handle in handles:
            handle.remove()
