"""PILOT: inpainting with any model, by optimising the latent (arXiv 2407.08019). How it joins a run."""

import math
from dataclasses import dataclass

import torch

from ..host import seeded
from ..host.attach import attach
from ..host.blocks import attention_blocks, grid_at, unet_of
from ..host.latents import LATENT_STEP, batched_mask, bounded_mask, checked_images, checked_latent, pixels_of
from ..host.messages import input_error, warn_user
from ..host.rows import acting_prompt
from ..host.technique import Technique
from ..host.token_runs import row_of_token, tokens_in
from ..host.unet_inputs import input_root
from ..host.when import whole_timestep
from ..latent_guidance.latent_gradient import OF_ALL_LAYERS, bytes_kept
from ..latent_guidance.step_entries import StepEntries
from .hole import Hole, of_rows
from .masked_text import MaskedText, PicturesOfCall
from .pilot_series import Series


@dataclass(frozen=True, eq=False)
class Scene:
    """What is painted: tensors stay on the CPU."""

    hole: Hole
    picture: torch.Tensor  # (b, C, h, w) in the sampler's units
    keep: torch.Tensor  # (b, h, w): 1 where the picture stays
    words: tuple  # positions of the prompt's words in its context, () where none guides
    all: tuple  # host keys of the cross-attentions
    guiding: tuple  # of those whose maps guide: all but those of the finest level


class Pilot(Technique):
    """PILOT on one MODEL."""

    name = "pilot"
    label = "PILOT"
    order = 45

    def __init__(self, scene, settings, gradient_rows):
        """gradient_rows: how many rows of the sampler's own need as much memory as the gradient of one row."""
        self.scene, self.settings, self.gradient_rows = scene, settings, gradient_rows

    def joined_by(self, later):
        """Raises ValueError: one latent is moved towards one picture."""
        raise input_error("this MODEL already has PILOT; paint one hole after the other, or give both in one mask")

    def extra_rows(self, noise_shape):
        # a forward of all pictures, and what is kept for the way back of one: others may take turns
        return noise_shape[0] + self.gradient_rows

    def begin(self, run):
        """Raises ValueError for a noise mask on the latent, and for latents of another size than the picture's."""
        if run.masked:
            raise input_error("PILOT blends by itself; take the latent without its noise mask")
        size = tuple(self.scene.picture.shape[-2:])
        if run.latent_size != size:
            came, made = ("x".join(map(str, reversed(pixels_of(one)))) for one in (run.latent_size, size))
            raise input_error(
                f"the latent is for {came} pixels, PILOT's picture is {made}; connect the LATENT of PILOT"
            )
        state = run.state(self.name, _State)
        if not state.entries.follow(run):
            state.off = True
            run.tell(
                "PILOT has no effect with this sampler, because it evaluates copies of the latent; use another, "
                "such as euler"
            )

    def shift(self, step):
        """The series' move, or what puts the noised picture around the hole; None at a sampler's trials."""
        state = step.run.state(self.name, _State)
        number = None if state.off else state.entries.number_of(step)
        if number is None or number in state.done or not step.moment.sigma > 0:
            return None
        state.done.add(number)
        if step.run.latent_size != tuple(step.x.shape[-2:]):
            step.run.tell("PILOT stops where this sampler changes the size of the latent")
            return None
        progress = step.run.progress(step.base.model_sampling)
        number += progress.before
        if whole_timestep(step.moment.sigma, step.base.model_sampling) < 1000 * (1 - self.settings.gamma):
            return self._blended(step, number)
        interval = self.settings.interval or max(1, progress.total // 10)
        entry = acting_prompt(step.run.conds(), step.moment.sigma)
        if number % interval or not self.settings.operations or entry is None or not bool(self.scene.keep.any()):
            return None
        moved, before = Series(step, entry, self.scene, self.settings, number == 0).moved()
        return ((moved - before) * input_root(step.base.model_sampling, step.moment.sigma)).to(step.x)

    def plan(self, call):
        if not bool(self.scene.keep.any()):
            return {}
        shown = PicturesOfCall(self.scene.hole, call)
        return {("attn2", block): MaskedText(self.scene.hole, call, shown) for block in self.scene.all}

    def _blended(self, step, number):
        rows, shape = len(step.x), (1, *step.x.shape[1:])
        noise = torch.cat([seeded.seeded_noise(f"pilot {self.settings.seed} {number} {i}", shape) for i in range(rows)])
        keep, picture = (of_rows(one, rows).to(step.x.device) for one in (self.scene.keep, self.scene.picture))
        wanted = picture + step.moment.sigma * noise.to(step.x.device)
        return ((wanted - step.x) * keep[:, None]).to(step.x)


class _State:
    """What lives for one run."""

    def __init__(self):
        self.entries, self.done, self.off = StepEntries(), set(), False


def attach_pilot(model, clip, vae, image, mask, prompt, settings):
    """(the MODEL that paints the hole of a picture, LATENT to begin with).

    image (b, H, W, 3); mask white on the hole. The MODEL itself for a mask that is black all over. Raises ValueError
    for inputs it cannot work with.
    """
    unet = unet_of(model, Pilot.label)
    pixels, masks = _fitted(image, mask)
    size = tuple(side // LATENT_STEP for side in pixels.shape[1:3])
    channels = model.model.latent_format.latent_channels
    latent = {"samples": torch.zeros(len(pixels), channels, *size)}
    hole = Hole(masks)
    cells = hole.cells(size)
    if not bool(cells.any()):
        why = "the hole is smaller than a cell of 8 x 8 pixels" if bool((masks > 0.5).any()) else "the mask is black"
        warn_user(f"PILOT: {why}, so there is nothing to paint and the model stays as it is")
        return model, latent
    if bool(cells.all()):
        warn_user("PILOT: the mask is white all over, so all of the picture is painted, as by a plain sampler")
    if model.model.concat_keys:
        warn_user("PILOT: this is an inpainting model, which needs no PILOT")
    if vae is None:
        raise input_error("vae is empty; connect the checkpoint's VAE")
    found = [
        model.model.process_latent_in(checked_latent(model.model, vae.encode(one[None]), "image")) for one in pixels
    ]
    levels = attention_blocks(unet)
    guiding = tuple(block for block, level in levels.items() if level > min(levels.values()))
    words = _words(clip, prompt, settings)
    if words and not _seen(hole, size, {levels[block] for block in guiding}):
        warn_user("PILOT: the hole is smaller than a token of every layer that guides; draw it larger or set coef to 0")
    scene = Scene(hole, torch.cat(found), of_rows(1 - cells, len(found)), words, tuple(levels), guiding)
    shape = latent["samples"].shape
    kept = bytes_kept(model.model, shape, OF_ALL_LAYERS)
    gradient_rows = math.ceil(kept / max(1.0, model.model.memory_required([1, *shape[1:]])))
    return attach(model, Pilot(scene, settings, gradient_rows)), latent


def _fitted(image, mask):
    """(pixels (b, H, W, 3), masks (b, H, W)) cut to whole latent cells, in the middle as a VAE cuts."""
    pixels = checked_images(image, "image").cpu()
    masks = batched_mask(bounded_mask(mask, "the picture", "mask")).cpu()
    if masks.ndim != 3 or len(masks) not in (1, len(pixels)):
        raise input_error(f"mask has the shape {tuple(masks.shape)}; connect one MASK, or one per picture")
    if masks.shape[1:] != pixels.shape[1:3]:
        masks = torch.nn.functional.interpolate(masks[:, None], pixels.shape[1:3], mode="bilinear")[:, 0]
    parts = [
        slice(side % LATENT_STEP // 2, side % LATENT_STEP // 2 + side // LATENT_STEP * LATENT_STEP)
        for side in masks.shape[1:]
    ]
    pixels, masks = pixels[:, parts[0], parts[1]], masks[:, parts[0], parts[1]]
    if 0 in pixels.shape:
        raise input_error(f"image is smaller than {LATENT_STEP} pixels; connect a larger picture")
    return pixels, masks


def _words(clip, prompt, settings):
    """Positions of a prompt's words in its context, () where they are not to guide."""
    if not settings.coef:
        return ()
    parts = tokens_in(clip, prompt) if prompt.strip() else []
    words = tuple(row_of_token(number, i) for number, part in enumerate(parts) for i in range(len(part)))
    if not words:
        warn_user("PILOT: prompt is empty, so no word is pulled into the hole; copy the positive prompt's text into it")
    return words


def _seen(hole, size, levels):
    """Whether some layer of these levels has a token in the hole."""
    return any(bool(hole.inside(size, grid_at(level, size)).any()) for level in levels)
