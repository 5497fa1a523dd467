"""StoryMaker's people at a MODEL's cross-attentions: their places, the ground, and a further person who joins."""

import weakref
from dataclasses import dataclass, replace

from ...kernels.story_projection import ground_tokens, placed_tokens
from ..host.messages import input_error
from ..image_adapters.adapter_use import STORYMAKER_NODE
from .image_layers import image_layers
from .image_member import ImageMember


@dataclass(frozen=True, eq=False)
class StoryMember(ImageMember):
    """An ImageMember whose objects are the ground and people, each with an embedding of its place.

    A person's tokens depend on how many stand before, so the adapter's matrices are kept for those who join.
    """

    source: object = None  # the adapter
    blocks: tuple = ()
    people: tuple = ()  # (tokens (v, T, D) of each picture without a place, those of nobody (1, T, D)) of each person

    def joined_by(self, later):
        people = self.people + later.people
        joined = _placed(self.source, self.blocks, people)
        # the ground is there once
        several = {
            name: getattr(self, name) + getattr(later, name)[1:]
            for name in ("strengths", "regions", "words", "lengths")
        }
        return replace(self, people=people, layers=joined, **several)


def story_member(adapter, blocks, people, said, *, scale, window):
    """The StoryMember of people; said: (strength, region, word) of each. ValueError for more people than places."""
    strengths, regions, words = zip(*said, strict=True)
    count = 1 + len(people)
    return StoryMember(
        adapter=weakref.ref(adapter),
        label=STORYMAKER_NODE,
        scale=float(scale),
        joint=True,
        power=1.0,
        window=window,
        text_gate=False,
        phrases=(),
        strengths=(1.0, *strengths),
        regions=(None, *regions),
        words=(None, *words),
        lengths=(adapter.projection.sizes.ground, *[adapter.tokens] * (count - 1)),
        layers=_placed(adapter, blocks, tuple(people)),
        share_empty=False,
        source=adapter,
        blocks=tuple(blocks),
        people=tuple(people),
    )


def _placed(adapter, blocks, people):
    """The ImageLayers of the ground and of people in their places."""
    most = adapter.projection.sizes.people
    if len(people) > most:
        raise input_error(
            f"{len(people)} people are connected, {adapter.name} has places for {most}; remove references until "
            f"{most} are left"
        )
    weights = adapter.projection.weights
    ground = ground_tokens(weights)
    tokens, empty = [ground], [ground]
    for place, (seen, nobody) in enumerate(people):
        # several pictures of one person are averaged
        tokens.append(placed_tokens(seen, place, weights).mean(0))
        empty.append(placed_tokens(nobody, place, weights).mean(0))
    return image_layers(blocks, adapter, tokens, empty)
