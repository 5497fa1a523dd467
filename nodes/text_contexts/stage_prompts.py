"""Stage prompts (ProSpect, arXiv 2305.16225): other words in each tenth of sampling, by the host's own ranges."""

from itertools import groupby

import node_helpers

from ..host.clip_text import check_clip
from .readings import WORD_STAGES

# What stands for the main prompt in a stage, and for the empty text alone.
MAIN, NOTHING = "{}", "-"
# Timesteps below the lowest of a stage at which it ends. The sampler's timesteps are whole numbers, found by rounding
# in the logarithm of noise levels: of 3,045 points of nine schedules none lies between this and the next.
_BELOW = 0.5013


def stage_prompts(clip, prompt, stages):
    """The CONDITIONING of a prompt whose text differs by tenths of sampling: one entry for each run of equal texts.

    stages: a text for each tenth, first to last. An empty one goes on with the text before it, the first with the
    prompt; "-" is the empty text; "{}" stands for the prompt.
    """
    check_clip(clip)
    texts = []
    for stage in stages:
        text = stage.strip()
        if text == NOTHING:
            texts.append("")
        else:
            texts.append(text.replace(MAIN, prompt) if text else texts[-1] if texts else prompt)
    encoded, found, first = {}, [], 0
    for text, run in groupby(texts):
        last = first + len(list(run))
        if text not in encoded:
            encoded[text] = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        span = {"start_percent": border(first), "end_percent": border(last)}
        found += node_helpers.conditioning_set_values(encoded[text], span)
        first = last
    return found


def border(stage):
    """The percent of sampling at which a stage (0 is the first) begins, and the one before it ends."""
    if stage in (0, WORD_STAGES):
        return float(stage > 0)
    lowest = 1000 // WORD_STAGES * (WORD_STAGES - stage)
    return 1 - (lowest - _BELOW) / 999
