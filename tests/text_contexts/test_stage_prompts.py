"""Stage prompts: one text in force at every noise level of every schedule, and it is the stage's own."""

import comfy.samplers
import pytest
import torch
from support.clips import encoded, tiny_clip
from support.contexts import every_attention
from support.models import execute, sample, tiny_model

from pack.nodes.text_contexts.stage_prompts_node import StagePrompts

SCHEDULERS = [name for name in comfy.samplers.SCHEDULER_NAMES if name != "beta57"]
STEPS = (4, 7, 10, 15, 20, 25, 30, 50)


def staged(clip, prompt="a cat", **stages):
    return execute(StagePrompts, clip=clip, prompt=prompt, **stages)[0]


def texts_of(clip, entries, known):
    """The known text of each entry."""
    contexts = {text: encoded(clip, text)[0][0] for text in known}
    return [next(text for text, one in contexts.items() if torch.equal(one, entry[0])) for entry in entries]


def test_what_stages_say():
    clip = tiny_clip()
    found = staged(clip, stage_1="a beach", stage_3="{}, a hat", stage_4="-", stage_5="{}", stage_9="{}")
    known = ["a beach", "a cat, a hat", "", "a cat"]
    assert texts_of(clip, found, known) == known
    assert found[0][1]["start_percent"] == 0.0 and found[-1][1]["end_percent"] == 1.0
    for one, other in zip(found, found[1:], strict=False):
        assert one[1]["end_percent"] == other[1]["start_percent"]
    (alone,) = staged(clip)
    assert torch.equal(alone[0], encoded(clip, "a cat")[0][0])
    # a text that comes again is an entry of its own, first to last
    assert len(staged(clip, stage_2="b", stage_3="{}")) == 3


def test_one_text_is_in_force_at_every_noise_level():
    clip, model = tiny_clip(), tiny_model()
    entries = staged(clip, **{f"stage_{number}": f"text {number}" for number in range(1, 11)})
    assert len(entries) == 10
    sampling = model.get_model_object("model_sampling")
    spans = [
        tuple(sampling.percent_to_sigma(values[side]) for side in ("start_percent", "end_percent"))
        for _, values in entries
    ]
    points, neighbours = 0, 0
    for scheduler in SCHEDULERS:
        for steps in STEPS:
            sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
            for sigma in [float(one) for one in sigmas if one > 0]:
                active = [number for number, (start, end) in enumerate(spans) if start >= sigma >= end]
                stage = 9 - int(sampling.timestep(torch.tensor(sigma))) // 100
                assert len(active) == 1, (scheduler, steps, sigma)
                neighbours += active != [stage]
                points += 1
    assert points > 1000 and neighbours <= 2


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_in_a_sampler(sampler):
    """Each call of the UNet reads the text of its stage, and no other."""
    clip, model = tiny_clip(), tiny_model()
    entries = staged(clip, **{f"stage_{number}": f"text {number}" for number in range(1, 11)})
    seen = {}

    def note(index, timestep, context):
        seen.setdefault(timestep, context[-1:])
        return context, context

    with every_attention(model.model.diffusion_model, note):
        sample(model, entries, encoded(clip, "bad"), steps=12, sampler=sampler)
    assert len(seen) >= 12
    for timestep, context in seen.items():
        assert torch.equal(context, entries[9 - int(timestep) // 100][0]), timestep
