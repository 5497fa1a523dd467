"""What stage prompts do to the pocket model, as the judge sees it."""

import judge
import pytest
from questions import seen
from samples import draw, encode
from support.models import execute

from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.text_contexts.stage_prompts_node import StagePrompts

SEEDS = list(range(7, 13))


class Encoded:
    """A CLIP that gives a prompt as a node has encoded it."""

    def __init__(self, clip, conditioning):
        self.clip, self.conditioning = clip, conditioning

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        return self.conditioning if text else encode(self.clip, text)


def things(model, clip, vae, conditioning):
    """What the judge sees in each picture."""
    pictures = draw((model, Encoded(clip, conditioning), vae), "as it is", SEEDS)
    return [words for words, *_ in seen(pictures, judge.load())]


@pytest.mark.slow
def test_a_stage_prompt_changes_one_thing():
    """A fox until stage 5, a cat from stage 6 on: the cake beside it is in all pictures."""
    model, clip, vae = load_pocket()
    prompt = "a {} on the left and a cake on the right on a teal background"
    (staged,) = execute(StagePrompts, clip=clip, prompt=prompt.format("fox"), stage_6=prompt.format("cat"))
    before, after = (things(model, clip, vae, one) for one in (encode(clip, prompt.format("fox")), staged))
    assert sum("fox" in words for words in before) >= 5 and not any("cat" in words for words in before)
    assert sum("cat" in words for words in after) >= 5 and not any("fox" in words for words in after)
    assert all("cake" in words for words in (*before, *after))
