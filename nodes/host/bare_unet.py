"""The UNet as the checkpoint has it, whatever was sampled before: what nodes may read names and shapes from."""

from contextlib import ExitStack, contextmanager
from functools import wraps

import comfy.model_management as mm

from .calls import live_unet


@contextmanager
def bare_unet(base):
    """Inside, the UNet of the host's BaseModel, which it yields, is free of what other packs have put into it.

    The host leaves the modules of a run (motion modules) and a compiled UNet where they are until it loads another
    model; they rename the modules behind them. Nothing may be loaded inside: all that was taken out comes back.
    """
    standing = base.diffusion_model
    with ExitStack() as ejected:
        for loaded in mm.current_loaded_models:
            # None: gone in the meantime
            if loaded.model is not None and getattr(loaded.model, "model", None) is base:
                ejected.enter_context(loaded.model.use_ejected())
        base.diffusion_model = live_unet(base)
        try:
            yield base.diffusion_model
        finally:
            base.diffusion_model = standing


def names_now(patcher):
    """{name of a module in the bare UNet: its name in the UNet as it stands} of what a run has renamed there.

    patcher: the host's handle on the model that runs, or None.
    """
    if patcher is None or not patcher.injections:
        return {}
    now = {id(module): name for name, module in live_unet(patcher.model).named_modules()}
    with bare_unet(patcher.model) as unet:
        bare = {name: now.get(id(module)) for name, module in unet.named_modules()}
    return {name: standing for name, standing in bare.items() if standing not in (None, name)}


def on_bare_unet(function):
    """A function of a MODEL, its first argument, that finds its UNet bare."""

    @wraps(function)
    def on_bare(model, *args, **kwargs):
        with bare_unet(model.model):
            return function(model, *args, **kwargs)

    return on_bare
