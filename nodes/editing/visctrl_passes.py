"""VisCtrl's passes: both pictures to noise, and one of them back with what the other shows."""

from dataclasses import dataclass

import comfy.model_management as mm
import latent_preview
import torch

from ..inversion.guided_inversion import inverted_with_guidance, sampled_back
from ..inversion.inversion import level_at
from ..inversion.kept_inversions import Inversion
from ..reference_attention.subject_replacement import attach_visctrl

_TIMESTEPS = 1000


@dataclass(frozen=True)
class Pass:
    """How one pass runs."""

    steps: int
    cfg: float
    first_step: int  # from which the reference is read

    @property
    def evaluations(self):
        """Of one picture, there or back: the lowest level moves nothing."""
        return self.steps - 1

    @property
    def reads(self):
        """Whether any step reads the reference."""
        return self.first_step < self.evaluations

    def levels(self, sampling):
        """Its noise levels (sigmas), ascending."""
        return [level_at(sampling, number * (_TIMESTEPS // self.steps)) for number in range(self.steps)]


def evaluations_of(passes):
    """How often a MODEL is evaluated for some passes with one reference, which is inverted once for all alike."""
    inverted = {(one.steps, one.cfg): one.evaluations for one in passes if one.reads}
    return sum(inverted.values()) + 2 * sum(one.evaluations for one in passes)


class Replacement:
    """One reference (a ReferenceRow) that takes the place of what pictures show."""

    def __init__(self, model, texts, row, blocks, progress):
        """texts: CONDITIONINGs of the pictures, of the reference, and the negative one; blocks: {host key: level} of
        the self-attentions that read the reference; progress: called after each evaluation, as the host's callback.
        """
        self.model, self.row, self.blocks, self.progress = model, row, blocks, progress
        self.own, self.theirs, self.negative = texts
        self.sampling = model.get_model_object("model_sampling")
        # {(steps, cfg): the reference's Inversion}
        self._inversions = {}

    def after(self, one, latents):
        """The latents (b, C, h, w) of pictures, in the sampler's units, after one Pass."""
        levels = one.levels(self.sampling)
        noised = self._inverted(self.own, one, latents)[-1]
        model = self.model
        if one.reads:
            model = attach_visctrl(model, self.row, self.blocks, self._inversion(one), one.first_step)
        return sampled_back(model, (self.own, self.negative), one.cfg, noised, levels, self.progress)

    def _inversion(self, one):
        key = one.steps, one.cfg
        if key not in self._inversions:
            path = self._inverted(self.theirs, one, self.row.latent)
            self._inversions[key] = Inversion(self.sampling, one.levels(self.sampling), torch.cat(path))
        return self._inversions[key]

    def _inverted(self, text, one, latents):
        levels = one.levels(self.sampling)
        return inverted_with_guidance(self.model, (text, self.negative), one.cfg, latents, levels, self.progress)


class ShownProgress:
    """Shows on the node how far it is, with the host's own preview; ends it where the user has interrupted."""

    def __init__(self, model, total):
        self._show, self._total, self._done = latent_preview.prepare_callback(model, total), total, 0

    def __call__(self, step, denoised, x, steps):
        mm.throw_exception_if_processing_interrupted()
        self._show(self._done, denoised, x, self._total)
        self._done += 1
