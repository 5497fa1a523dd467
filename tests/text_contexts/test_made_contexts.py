"""Words that a network makes while sampling: the text encoder reads the prompt anew at each timestep."""

from threading import Event, Thread

import comfy.model_management as mm
import pytest
import torch
from composition.scene import same, unlike
from support.clips import encoded, tiny_clip
from support.contexts import every_attention, random
from support.models import recording, sample, tiny_model
from support.thorough import few_of

import nodes
from pack.nodes.host.attach import attach
from pack.nodes.host.content_keys import digest
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.text_contexts.context_router import ContextRouter

PROMPT = "a <dog> on the beach"
TEXTS = {
    "plain": PROMPT,
    "twice": "a <dog> and a <dog>",
    "weights": "a (<dog>:1.3) on the (beach:0.8)",
    "long": PROMPT + ", sun" * 80 + ", <dog>",
}


class Made:
    """Rows and moves that turn with the timestep."""

    layers = 16

    def __init__(self, bypass=True, seed=0):
        self.rows, self.moves = (random(2, 16, 32, seed=seed + i) for i in (0, 1))
        self.bypass = bypass
        self.contents = self.rows, self.moves, bypass
        self.asked = []

    def at(self, timestep):
        self.asked.append(timestep)
        share = timestep / 1000
        mixed = [share * one[0] + (1 - share) * one[1] for one in (self.rows, self.moves)]
        return mixed[0], mixed[1] if self.bypass else None


def taught(clip, maker, name="<dog>"):
    return with_words(clip, [Word(name, {"l": random(1, 32, seed=9)}, maker=maker)])


def by_hand(clip, text, rows, move, places):
    """A prompt with a fixed row in the word's place, its states moved before the last norm."""
    norm = clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm

    def moved(module, args):
        (x,) = args
        x = x.clone()
        for part, at in places:
            if part < len(x):
                x[part, at] += 0.2 * move / move.norm() * x[part, at].norm()
        return x

    hook = norm.register_forward_pre_hook(moved) if move is not None else None
    try:
        return encoded(with_words(clip, [Word("<dog>", {"l": rows[None]})]), text)[0][0]
    finally:
        if hook:
            hook.remove()


def near(a, b):
    assert a.shape == b.shape
    assert (a - b).norm() / b.norm() < 1e-5


@pytest.mark.parametrize("bypass", few_of([True, False], True))
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_each_timestep_and_layer_reads_what_is_made(text, bypass):
    clip, maker = tiny_clip(), Made(bypass)
    known = taught(clip, maker)
    ((tensor, values),) = encoded(known, text)
    parts = known.tokenize(text)["l"]
    places = [(n, at) for n, part in enumerate(parts) for at, (token, _) in enumerate(part) if torch.is_tensor(token)]
    near(tensor, by_hand(clip, text, random(1, 32, seed=9)[0], None, ()))
    assert torch.equal(values[PLAIN], tensor)
    for timestep in (999.0, 20.0):
        rows, moves = maker.at(timestep)
        keys, apart = values[LAYERS].at(timestep)
        assert (apart is None) == (not bypass)
        for layer in (0, 7, 15):
            near(keys[layer : layer + 1], by_hand(clip, text, rows[layer], None, ()))
            if bypass:
                near(apart[layer : layer + 1], by_hand(clip, text, rows[layer], moves[layer], places))


def test_beside_words_of_other_kinds():
    """By stage and by layer, and with keys that read another text."""
    clip, maker = tiny_clip(), Made()
    staged, layered = random(1, 10, 1, 32, seed=3), random(16, 32, seed=4)
    words = [Word("<stage>", {"l": staged}), Word("<layer>", {"l": layered}), Word("<other>", {"l": random(1, 32)})]
    ((_, values),) = encoded(taught(with_words(clip, words), maker), "a <stage> <dog> <layer>")
    for timestep, stage in ((950.0, 9), (120.0, 1)):
        keys, _ = values[LAYERS].at(timestep)
        rows = maker.at(timestep)[0]
        for layer in (0, 11):
            fixed = [
                Word("<stage>", {"l": staged[0, stage]}),
                Word("<dog>", {"l": rows[layer][None]}),
                Word("<layer>", {"l": layered[layer][None]}),
            ]
            near(keys[layer : layer + 1], encoded(with_words(clip, fixed), "a <stage> <dog> <layer>")[0][0])
    locked = Word("<lock>", {"l": random(1, 32, seed=5)}, keys_as="dog")
    ((_, values),) = encoded(taught(with_words(clip, [locked]), maker), "a <lock> <dog>")
    keys, apart = values[LAYERS].at(300.0)
    rows, moves = maker.at(300.0)
    fixed = with_words(clip, [Word("<dog>", {"l": rows[5][None]}), Word("<lock>", {"l": locked.rows["l"]})])
    near(keys[5:6], encoded(fixed, "a dog <dog>")[0][0])
    assert not torch.allclose(apart[5, 2], encoded(fixed, "a dog <dog>")[0][0][0, 2])


def test_the_encoder_is_left_as_it_was():
    clip = tiny_clip()
    known = taught(clip, Made())
    network = clip.cond_stage_model.clip_l
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ((_, values),) = encoded(known, PROMPT)
    network.reset_clip_options()
    state = {name: value for name, value in vars(network).items() if not name.startswith("_")}
    values[LAYERS].at(500.0)
    assert {name: value for name, value in vars(network).items() if not name.startswith("_")} == state
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_skipped_layers_are_skipped_at_each_timestep():
    clip, maker = tiny_clip(), Made()
    known = taught(clip, maker)
    known.clip_layer(-2)
    ((_, values),) = encoded(known, PROMPT)
    clip.clip_layer(-2)
    rows, moves = maker.at(700.0)
    keys, apart = values[LAYERS].at(700.0)
    near(keys[3:4], by_hand(clip, PROMPT, rows[3], None, ()))
    near(apart[3:4], by_hand(clip, PROMPT, rows[3], moves[3], [(0, 2)]))


def run(model, positive, negative, **settings):
    return sample(model, positive, negative, steps=3, **settings)


def texts(known, text=PROMPT):
    return encoded(known, text), encoded(known, "blurry")


def test_in_a_sampler():
    """Each call of the UNet reads what is made at its timestep; its patches are those of the CLIP that encoded."""
    bare, clip = tiny_model(seed=1), tiny_clip()
    lora = {f"clip_l.transformer.{key}": ("diff", (random(*t.shape, seed=7) * 0.1,)) for key, t in
            clip.cond_stage_model.clip_l.transformer.state_dict().items() if key.endswith("q_proj.weight")}  # fmt: skip
    patched = clip.clone()
    assert len(patched.add_patches(lora, 1.0)) == 3
    maker = Made()
    positive, negative = texts(taught(patched, maker))
    expected_at = {}
    for timestep in (999.0, 500.0):
        expected_at[timestep] = positive[0][1][LAYERS].at(timestep)
    # another prompt by the bare network in between
    encoded(clip, "something else")
    with pytest.raises(ValueError, match="encode both prompts with the same CLIP"):
        positive[0][1][LAYERS].at(500.0)
    mm.unload_all_models()
    assert torch.equal(positive[0][1][LAYERS].at(500.0)[0], expected_at[500.0][0])
    encoded(clip, "something else")

    model, recorder = recording(attach(bare, ContextRouter(("ED-LoRA",))))
    maker.asked.clear()
    ours = run(model, positive, negative)
    assert [len(call.x) for call in recorder.calls] == [2, 2, 2] and len(set(maker.asked)) == 3
    contexts, (tensor, _) = positive[0][1][LAYERS], positive[0]

    def change(index, timestep, context):
        keys, values = contexts.at(timestep)
        rows = [torch.equal(row, tensor[0]) for row in context]
        assert sum(rows) == 1
        mine = torch.tensor(rows)[:, None, None]
        return torch.where(mine, keys[index], context), torch.where(mine, values[index], context)

    with every_attention(bare.model.diffusion_model, change):
        assert same(ours, run(bare, positive, negative))
    assert unlike(ours, run(bare, positive, negative))


def test_two_clips_with_other_patches_in_one_run_are_refused():
    clip, model = tiny_clip(), attach(tiny_model(), ContextRouter(("ED-LoRA",)))
    other = clip.clone()
    key = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"
    other.add_patches({key: ("diff", (torch.ones(32, 32),))}, 1.0)
    one, two = encoded(taught(clip, Made()), PROMPT), encoded(taught(other, Made()), PROMPT)
    with pytest.raises(ValueError, match="encode both prompts with the same CLIP"):
        run(model, one, two)
    # equal patches are no conflict, and neither is a plain prompt of the other
    run(model, one, encoded(taught(clip.clone(), Made(seed=2)), PROMPT))
    run(model, one, encoded(other, "blurry"))


def test_what_other_nodes_do_is_done_when_it_is_made():
    known = taught(tiny_clip(), Made())
    model = attach(tiny_model(), ContextRouter(("ED-LoRA",)))
    one, other = encoded(known, PROMPT), encoded(known, "a cat")
    (average,) = nodes.ConditioningAverage().addWeighted(one, other, 0.7)
    (joined,) = nodes.ConditioningConcat().concat(one, other)
    both = nodes.ConditioningCombine().combine(one, other)[0]
    area = nodes.ConditioningSetArea().append(one, 64, 32, 0, 0, 1.0)[0]
    timed = nodes.ConditioningSetTimestepRange().set_range(one, 0.0, 0.5)[0]
    late = nodes.ConditioningSetTimestepRange().set_range(other, 0.5, 1.0)[0]
    plain = run(model, one, other)
    for changed in (average, joined, both, [*area, *other], [*timed, *late]):
        found = run(model, changed, other)
        assert torch.isfinite(found).all() and not torch.equal(found, plain)
    zeroed = nodes.ConditioningZeroOut().zero_out(one)[0]
    assert not zeroed[0][1][LAYERS].at(10.0)[0].eq(0).all()
    bare = tiny_model()
    assert same(run(attach(bare, ContextRouter(("ED-LoRA",))), zeroed, other), run(bare, zeroed, other))


def test_threads_take_turns():
    """Each device samples in a thread of its own, and all of them ask one text encoder."""
    clip, (first, second, done) = tiny_clip(), (Event() for _ in range(3))
    encoder = clip.cond_stage_model.clip_l
    before = encoder.layer, encoder.layer_idx, encoder.layer_norm_hidden_state

    class Slow(Made):
        def at(self, timestep):
            # the later one comes while the first is inside, and leaves behind it, were nothing in its way
            mine, awaited = (first, second) if timestep == 500.0 else (second, done)
            mine.set()
            awaited.wait(0.5)
            return super().at(timestep)

    ((_, values),) = encoded(taught(clip, Slow()), PROMPT)
    one, other = (Thread(target=values[LAYERS].at, args=(timestep,)) for timestep in (500.0, 100.0))
    one.start()
    first.wait(10)
    other.start()
    one.join()
    done.set()
    other.join()
    assert (encoder.layer, encoder.layer_idx, encoder.layer_norm_hidden_state) == before


def test_contents_tell_makers_tokens_and_patches_apart():
    clip = tiny_clip()
    other = clip.clone()
    key = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"
    other.add_patches({key: ("diff", (torch.ones(32, 32),))}, 1.0)
    prompts = [
        encoded(taught(clip, Made()), PROMPT),
        encoded(taught(clip, Made(seed=4)), PROMPT),
        encoded(taught(clip, Made()), "a <dog> in the sea"),
        encoded(taught(clip, Made()), "a (<dog>:1.1) on the beach"),
        encoded(taught(other, Made()), PROMPT),
    ]
    keys = [digest(values[LAYERS]) for ((_, values),) in prompts]
    assert len(set(keys)) == len(keys)
    assert digest(encoded(taught(clip, Made()), PROMPT)[0][1][LAYERS]) == keys[0]


def test_many_runs_keep_nothing():
    known, model = taught(tiny_clip(), Made()), attach(tiny_model(), ContextRouter(("ED-LoRA",)))
    positive, negative = texts(known)
    for seed in range(5):
        run(model, positive, negative, seed=seed)
    assert len(positive[0][1][LAYERS]._last) == 1
