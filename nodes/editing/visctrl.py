"""VisCtrl: another subject put in one's place and pose (arXiv 2406.06258).

Both pictures are inverted with guidance; on the way back the queries of the first see the keys and values of the
second alone. Further passes edit the result. No noise is drawn.
"""

import math

import torch

from ...kernels.masks import WHOLE
from ..host.attach import technique_of
from ..host.blocks import attention_blocks, unet_of
from ..host.calls import noise_levels
from ..host.latents import checked_images, checked_latent
from ..host.messages import input_error
from ..host.prompt_extras import say_unused
from ..host.unet_inputs import check_prompt, unet_inputs
from ..reference_attention.reference_rows import ReferenceRow
from ..references.reference_views import View, fitted_picture
from ..references.references_wire import Reference
from .visctrl_passes import Pass, Replacement, ShownProgress, evaluations_of

_TEXTS = "positive", "reference_positive", "negative"


def edited(model, vae, texts, images, references, passes, start_block):
    """IMAGE (b, H, W, 3): pictures with the subject of a reference in the place of their own.

    texts: CONDITIONINGs of the pictures, of the references, and what all are led away from; images (b, H, W, 3);
    references: one picture for all, or one for each; passes: a Pass for each iteration; start_block: the first
    self-attention that reads the reference. Raises ValueError for inputs it cannot work with.
    """
    blocks = _blocks_of(model, start_block)
    for name, text in zip(_TEXTS, texts, strict=True):
        if not text:
            raise input_error(f"{name} is empty; connect a CLIP Text Encode")
        check_prompt(model, text, name)
    say_unused(texts[1], _TEXTS[1], "while the picture looks at the reference, only its text is used")
    pictures = _latents_of(model, vae, images, "image")
    rows = _rows_of(model, vae, references, texts[1])
    if len(rows) not in (1, len(pictures)):
        raise input_error(
            f"{len(rows)} reference pictures came for {len(pictures)} pictures; connect one, or one for each"
        )
    # all pictures of one reference at once
    groups = [torch.cat(pictures)] if len(rows) == 1 else pictures
    progress = ShownProgress(model, len(groups) * evaluations_of(passes))
    made = []
    for latents, row in zip(groups, rows, strict=True):
        replacement = Replacement(model, texts, row, blocks, progress)
        for one in passes:
            latents = replacement.after(one, latents)
        made.append(latents)
    return vae.decode(model.model.process_latent_out(torch.cat(made)))


def checked_pass(steps, cfg, first_step, names):
    """The Pass of these settings; ValueError, by the names of their inputs, for a start behind the last step."""
    if first_step >= steps:
        raise input_error(f"{names[2]} is {first_step}; enter a number below {names[0]}, which is {steps}")
    return Pass(steps, cfg, first_step)


def _blocks_of(model, first):
    """{host key: level} of the self-attentions that read the reference."""
    levels = attention_blocks(unet_of(model, "VisCtrl"))
    if noise_levels(model.get_model_object("model_sampling")) is None:
        raise input_error(
            "VisCtrl needs a model with a table of noise levels; connect an SD1.5, SD2.x or SDXL checkpoint"
        )
    if technique_of(model, "pilot") is not None:
        raise input_error("VisCtrl does not work on a MODEL with PILOT; connect the MODEL from before PILOT")
    if first >= len(levels):
        raise input_error(
            f"start_block is {first}; this model has {len(levels)} self-attentions, 0 to {len(levels) - 1}"
        )
    return dict(list(levels.items())[first:])


def _latents_of(model, vae, images, label):
    """The latent (1, C, h, w) of each picture, in the sampler's units."""
    if vae is None:
        raise input_error("vae is empty; connect the checkpoint's VAE")
    return [model.model.process_latent_in(latent) for latent, _ in _encoded(model, vae, images, label)]


def _rows_of(model, vae, references, text):
    """A ReferenceRow of each reference picture, all of which it shows."""
    base, rows = model.model, []
    for shown, pixels in _encoded(model, vae, references, "reference_image"):
        latent = base.process_latent_in(shown)
        view = View(Reference(pixels), "reference_image", pixels, None, WHOLE, None)
        inputs = unet_inputs(base, *text[0][:2], latent, picture=shown)
        rows.append(ReferenceRow(view, len(rows), latent, inputs, None, 0.0))
    return rows


def _encoded(model, vae, images, label):
    """(what the VAE makes of it (1, C, h, w), its pixels (1, H, W, 3)) of each picture."""
    for image in checked_images(images, label).cpu():
        pixels, _ = fitted_picture(image, math.inf, label)
        yield checked_latent(model.model, vae.encode(pixels), label), pixels
