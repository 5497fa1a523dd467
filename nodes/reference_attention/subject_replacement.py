"""One reference in the place of what a picture shows: VisCtrl's attention (arXiv 2406.06258)."""

from dataclasses import dataclass

from ..host.attach import attach
from .mrsa import ReferenceAttention, ReferenceMember
from .reference_branch import REPLACE


@dataclass(frozen=True, eq=False)
class ReplacingMember(ReferenceMember):
    """A reference on its own way to noise, whose keys and values stand for those of the picture, on both sides."""

    inversion: object = None  # the reference's, at the noise levels of the run

    def reference_inversion(self, call, row):
        """The one that was made before the run; the reference is on no other level."""
        return self.inversion


@dataclass(frozen=True)
class FromStep:
    """The part of a run, as a Window, that begins with the step of a number."""

    number: int

    def holds(self, moment, model_sampling):
        """Whether a moment lies in it."""
        return moment.step >= self.number


class VisCtrl(ReferenceAttention):
    """VisCtrl on one MODEL."""

    name = "visctrl"
    label = "VisCtrl"
    order = 42
    # it keeps nothing, and leaves others what they have
    cache_bytes = None

    def finished(self, run, latents):
        """Nothing to say of what is kept."""


def attach_visctrl(model, row, blocks, inversion, first_step):
    """The MODEL whose self-attentions at blocks ({host key: level}) see the reference of a ReferenceRow alone.

    inversion: the Inversion of the reference; first_step: of the run, from which they do. Beside rows of the prompt it
    reads its own, beside those of the negative theirs.
    """
    member = ReplacingMember(
        rows=(row,),
        pictures=1,
        blocks=blocks,
        style_fidelity=0.0,
        window=FromStep(first_step),
        noise="inverted",
        seed=0,
        cache_bytes=0,
        joining=REPLACE,
        inversion=inversion,
    )
    return attach(model, VisCtrl((member,)))
