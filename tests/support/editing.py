"""Pictures that exist, edited on the tiny models: through PILOT and VisCtrl as users connect them."""

import torch
from support.clips import NumberedCLIP
from support.models import execute
from support.references import PixelVAE, prompt

from pack.nodes.editing.pilot_node import PILOT
from pack.nodes.editing.visctrl_node import VisCtrlNode

# the prompt of `painted`, as NumberedCLIP reads it
TEXT = "49406 320 1125 49407"


class LatentVAE(PixelVAE):
    """Encodes as PixelVAE; what is decoded is the latent itself, its channels last."""

    def decode(self, latent):
        return latent.movedim(1, -1)


def pictures(count=1, height=64, width=64, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def box(size=64, start=16, stop=48, batch=1):
    """A mask with a white square."""
    mask = torch.zeros(batch, size, size)
    mask[:, start:stop, start:stop] = 1
    return mask


def painted(model, **inputs):
    """(the MODEL after the PILOT node, its LATENT)"""
    given = {"clip": NumberedCLIP({}), "vae": PixelVAE(), "image": pictures(), "mask": box(), "prompt": TEXT}
    return execute(PILOT, model=model, **{**given, "operations": 2, **inputs})


def edited(model, image=None, reference=None, **inputs):
    """What VisCtrl makes of a picture, as its latent (b, h, w, C); the shortest run at a gentle cfg."""
    texts = {"positive": prompt(model, 100), "reference_positive": prompt(model, 150), "negative": prompt(model, 200)}
    given = {"iterations": 1, "steps": 2, "cfg": 2.0, "start_step": 0}
    given |= {"later_steps": 2, "later_cfg": 2.0, "later_start": 0}
    given |= {"image": pictures() if image is None else image, "vae": LatentVAE(), **texts}
    given["reference_image"] = pictures(seed=1) if reference is None else reference
    return execute(VisCtrlNode, model=model, **{**given, **inputs})[0]
