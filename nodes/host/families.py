"""Which family of checkpoints a MODEL belongs to."""

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.supported_models import SD15, SD20, SDXL

from .calls import live_unet

# Where the families were trained: the side of a square picture.
NATIVE = {"SD1.5": 512, "SD2.x": 768, "SDXL": 1024}
# Sides that halve evenly as often as the UNet does: three times, twice.
MULTIPLE = {"SD1.5": 64, "SDXL": 32}
# The width of the context that a UNet reads, and whose it is.
CONTEXT_WIDTHS = {768: "SD1.5", 1024: "SD2.x", 1280: "the SDXL refiner", 2048: "SDXL"}
# The same of the prompts that other models read too.
PROMPT_WIDTHS = CONTEXT_WIDTHS | {1024: "SD2.x or Hunyuan-DiT", 4096: "a T5 encoder"}
# Latents of other numbers of channels than the 4 of the families above.
OTHER_CHANNELS = {
    3: "a pixel model",
    12: "Mochi",
    16: "SD3, Flux or a relative",
    32: "Flux 2 or a relative",
    128: "LTX or Flux 2",
}


def native_side(model):
    """The side in pixels of the square pictures that a MODEL was trained on; of an unknown family as SD1.5."""
    own = getattr(model.model, "native_side", None)
    return own or NATIVE.get(family_of(model), NATIVE["SD1.5"])


def family_of(model):
    """ "SD1.5", "SD2.x" or "SDXL"; for another model the name of its class.

    By family and not by shape: SD2.x has the shapes of SD1.5 in all convolutions and norms.
    """
    config = model.model.model_config
    if isinstance(live_unet(model.model), UNetModel):
        if isinstance(config, SDXL):
            return "SDXL"
        if isinstance(config, SD20) or config.unet_config.get("context_dim") == 1024:
            return "SD2.x"
        if isinstance(config, SD15):
            return "SD1.5"
    return type(model.model).__name__
