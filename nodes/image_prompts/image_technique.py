"""Image prompts at the cross-attentions of a MODEL: one technique for all nodes that give it tokens of pictures."""

from ..host.attach import technique_of
from ..host.frames import tell_of_stretch
from ..host.latents import checked_images, latents_of, pixels_of
from ..host.messages import input_error
from ..host.run_records import keep_record, record_of
from ..host.technique import Technique, joined_members
from .heat_maps import heat_maps
from .image_branch import ImageBranch
from .image_run import OTHER_TEXTS, ImageRun, mean_shares
from .image_words import check_words
from .sampled_text import tell_of_another_text


class ImagePrompts(Technique):
    """All image prompts of one MODEL. Nodes of equal settings share one merge; others add to it."""

    name = "image_prompts"
    order = 30

    def __init__(self, members):
        self.members = members

    def joined_by(self, later):
        members = joined_members(self.members, later.members)
        for member in members:
            check_words(member.phrases, [f"reference {number}" for number in range(1, len(member.phrases) + 1)])
        return ImagePrompts(members)

    def begin(self, run):
        for member in self.members:
            tell_of_stretch(run, member.label, "a region", member.regions)
            if member.needs_maps:
                others = tell_of_another_text(run, member.label, member.prompts)
                run.state((OTHER_TEXTS, member), lambda others=others: others)

    def plan(self, call):
        active = [m for m in self.members if m.window.holds(call.moment, call.base.model_sampling)]
        if not active:
            return {}
        state = call.run.state(self.name, ImageRun, call.base)
        state.enter(call, active)
        return {("attn2", block): ImageBranch(block, active, state, call.run) for block in active[0].layers}

    def finished(self, run, latents):
        states = run.states(self.name)
        rows, size = len(latents), tuple(latents.shape[-2:])
        # per object its words and its share (b, h, w) of each place, in 0..1
        maps = []
        for member in self.members:
            shares = mean_shares(states, member, rows, size)
            if shares is not None:
                maps += [(word, shares[:, i]) for i, word in enumerate(member.words) if word is not None]
        if maps:
            keep_record(self, latents, tuple(maps))


def maps_over(model, samples, images=None):
    """IMAGE: the objects' shares of the result `samples`, a LATENT, drawn over its decoded images if given.

    Raises ValueError for a MODEL without image prompts, and for latents that it did not make lately.
    """
    technique = technique_of(model, ImagePrompts.name)
    if technique is None:
        raise input_error(
            "this MODEL has no MIP-Adapter and no other image prompts; connect the MODEL that such a node gives and "
            "that was sampled"
        )
    latents = latents_of(samples)
    maps = record_of(technique, latents)
    if maps is None:
        raise input_error(
            f"these samples are not from a recent run of this MODEL with {_labels(technique)} active; connect the "
            "LATENT straight from the sampler that uses this MODEL, and run again"
        )
    images = None if images is None else checked_images(images, "images")
    if images is not None and len(images) not in (1, len(latents)):
        raise input_error(f"images has {len(images)} pictures for {len(latents)} samples; connect the decoded samples")
    return heat_maps(maps, pixels_of(latents.shape[-2:]), images)


def _labels(technique):
    return " and ".join(dict.fromkeys(member.label for member in technique.members))
