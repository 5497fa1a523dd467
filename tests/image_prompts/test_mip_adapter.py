"""MIP-Adapter by property: off is nothing, nothing leaks, and every size, dtype, batch and sampler works."""

import gc

import comfy.model_base
import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from support.compare import differ
from support.image_prompts import GreyVision, TinyWords, adapter_of, references_of, with_pictures
from support.models import execute, recording, sample, tiny_model
from support.references import draw, half_mask, picture, prompt
from support.thorough import few_of

from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run import Run
from pack.nodes.host.run_records import record_of
from pack.nodes.image_prompts import image_run
from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter, MIPMaps


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


@pytest.fixture(scope="module")
def sdxl():
    return tiny_model("sdxl")


# off is nothing


@pytest.mark.parametrize(
    "inputs",
    [{"words": ()}, {"references": None}, {"scale": 0.0}, {"strengths": [0.0, 0.0]}],
    ids=["no references", "None", "scale 0", "strength 0"],
)
def test_off_is_bit_equal(model, inputs):
    assert torch.equal(picture(with_pictures(model, **inputs)), picture(model))


@pytest.mark.parametrize("merge", ["weighted", "joint"])
def test_regions_over_nothing_are_nothing(model, merge):
    nowhere = with_pictures(model, regions=[torch.full((1, 9, 9), 1e-30)] * 2, merge=merge)
    assert differ(picture(nowhere), picture(model)) < 1e-5


@pytest.mark.parametrize("merge", ["weighted", "joint"])
def test_regions_over_everything_are_none(model, merge):
    everywhere = with_pictures(model, regions=[torch.ones(1, 9, 9)] * 2, merge=merge)
    assert differ(picture(everywhere), picture(with_pictures(model, merge=merge))) < 1e-5


def test_outside_the_window_is_bit_equal(model):
    bare, bare_calls = recording(model)
    picture(bare, steps=4)
    patched, calls = recording(with_pictures(model, start_percent=0.4))
    picture(patched, steps=4)
    start = model.get_model_object("model_sampling").percent_to_sigma(0.4)
    assert calls.calls[0].sigma > start > calls.calls[-1].sigma
    for ours, plain in zip(calls.calls, bare_calls.calls, strict=True):
        if ours.sigma > start:
            assert torch.equal(ours.cond, plain.cond) and torch.equal(ours.uncond, plain.uncond)
        else:
            assert differ(ours.cond, plain.cond) > 1e-3
            break


def test_strength_and_scale_are_continuous_down_to_zero(model):
    bare = picture(model, steps=1)
    sizes = (1, 1e-2, 1e-4, 1e-6)
    for inputs in (lambda s: {"scale": s}, lambda s: {"strengths": [s, s]}):
        changes = [differ(picture(with_pictures(model, **inputs(s)), steps=1), bare) for s in sizes]
        assert changes == sorted(changes, reverse=True) and changes[0] > 0.1 and changes[-1] < 1e-4


# what the merge means


def test_one_reference_is_a_plain_ip_adapter(model):
    """Without a gate and with one reference, weighted and joint are the same, and no word is needed."""
    weighted = picture(with_pictures(model, ("",)))
    assert differ(weighted, picture(with_pictures(model, ("",), merge="joint"))) < 1e-5
    assert differ(weighted, picture(with_pictures(model, ("a cat",)))) < 1e-6


def test_equal_words_mix_half_and_half(model, caplog):
    """As an equal mix by merge power 0 does; the node warns of it."""
    twice = picture(with_pictures(model, ("a cat", "a cat")))
    assert 'several references have the word "a cat"' in caplog.text
    assert differ(twice, picture(with_pictures(model, ("a cat", "hat"), merge_power=0.0))) < 1e-5
    assert differ(twice, picture(with_pictures(model, ("a cat", "hat")))) > 1e-3


def test_the_order_of_references_does_not_matter(model):
    images = [1, 1, 1]
    chain = references_of(["a cat", "hat", "red car"], images)
    one = with_pictures(model, references=chain)
    other = with_pictures(model, references=chain[::-1])
    assert differ(picture(one), picture(other)) < 1e-4


def test_another_reference_of_equal_look_changes_nothing():
    """The mix is convex: a second reference with the same picture does not strengthen it."""
    # in double: the random UNet multiplies what differs by rounding a thousandfold
    model = tiny_model("sd15", dtype=torch.float64)
    (one,) = references_of(["a cat"])
    chain = (one, type(one)(one.image, "hat"))
    both, alone = (picture(with_pictures(model, references=references)) for references in (chain, chain[:1]))
    assert differ(both, alone) < 1e-4


def test_views_of_one_object_are_averaged(model):
    (one,) = references_of(["a cat"])
    repeated = type(one)(one.image.repeat(3, 1, 1, 1), one.word)
    assert (
        differ(picture(with_pictures(model, references=(repeated,))), picture(with_pictures(model, ("a cat",)))) < 1e-3
    )


def at_first_attention(model):
    """What leaves the UNet's first cross-attention, where nothing else has happened yet: conditional rows (n, c)."""
    patched, seen = model.clone(), []
    patched.set_model_attn2_output_patch(lambda n, options: (seen.append((n, options["cond_or_uncond"])), n)[1])
    picture(patched, steps=1)
    rows, sides = seen[0]
    return rows[sides.index(0)]


@pytest.mark.parametrize("merge", ["weighted", "joint"])
def test_regions_part_the_picture(model, merge):
    """Each half of the tokens sees what its own reference alone would show there."""
    left = half_mask(64, 64)
    chain = references_of(["a cat", "hat"])
    cat, hat = (at_first_attention(with_pictures(model, references=(one,))) for one in chain)
    on_the_left = torch.arange(64) % 8 < 4
    for regions, first, second in (([left, 1 - left], cat, hat), ([1 - left, left], hat, cat)):
        both = with_pictures(model, references=references_of(["a cat", "hat"], regions=regions), merge=merge)
        assert differ(at_first_attention(both), torch.where(on_the_left[:, None], first, second)) < 1e-5
    assert differ(cat, hat) > 1e-2


def test_unconditional_rows_need_no_map(model):
    """Which words stand at the references changes nothing there."""
    seen = []
    for words in (("a cat", "hat"), ("red car", "blue dog")):
        patched, calls = recording(with_pictures(model, words))
        picture(patched, steps=1)
        seen.append(calls.calls[0])
    assert torch.equal(seen[0].uncond, seen[1].uncond)
    assert differ(seen[0].cond, seen[1].cond) > 1e-3


def test_gate_can_be_switched_off(sdxl):
    found = []
    for on in (True, False):
        patched, calls = recording(with_pictures(sdxl, text_gate=on))
        picture(patched, steps=1)
        found.append(calls.calls[0])
    # in both halves of CFG
    assert differ(found[0].cond, found[1].cond) > 1e-3 and differ(found[0].uncond, found[1].uncond) > 1e-3


def test_phrases_in_the_prompt(model, caplog):
    """With the prompt's own rows the words mean what they mean there; words not found stand alone, and it is said."""
    prompted = with_pictures(model, phrase_source="prompt", prompt="photo of a cat with hat on")
    assert not caplog.text
    assert differ(picture(prompted), picture(with_pictures(model))) > 1e-3
    missing = with_pictures(model, phrase_source="prompt", prompt="photo of a dog")
    assert caplog.text.count("is not in the prompt") == 2
    assert differ(picture(missing), picture(with_pictures(model))) < 1e-6


def without_uuids(model):
    """The MODEL with another pack's wrapper, which does not say which conditionings a call of the UNet carries."""
    clone = model.clone()

    def forget(executor, x, timesteps, context, y, control, options, **kwargs):
        options = {name: value for name, value in options.items() if name != "uuids"}
        return executor(x, timesteps, context, y, control, options, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "uuids", forget)
    return clone


def test_phrases_are_read_in_the_text_that_another_pack_made(model):
    """From the second step on it is another one: as in a run of which that is the first."""

    def change(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        if float(t[0]) < 10:
            c_crossattn = c_crossattn + 2 * draw(1, c_crossattn.shape[1], 32, seed=9)
        return executor(x, t, c_concat, c_crossattn, *args, **kwargs)

    ours = with_pictures(model, phrase_source="prompt", prompt="photo of a cat with hat on").clone()
    ours.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "another pack", change)
    texts = prompt(model, 100, tokens=77), prompt(model, 200, tokens=77)
    whole = sample(ours, *texts, steps=3)
    first = sample(ours, *texts, steps=3, last_step=1, force_full_denoise=False)
    rest = {"latent": first, "noise": torch.zeros_like(first), "start_step": 1, "disable_noise": True}
    assert differ(sample(ours, *texts, steps=3, **rest), whole) < 1e-4


def test_each_prompt_has_its_own_phrases_where_nobody_names_it(model):
    """Two prompts take turns at one place of the batch: the phrases are read in the one that is there."""
    patched = with_pictures(model, phrase_source="prompt", prompt="photo of a cat with hat on")
    turns = [
        [prompt(model, seed)[0][0], {"start_percent": start, "end_percent": end}]
        for seed, start, end in ((100, 0.0, 0.5), (300, 0.5, 1.0))
    ]
    named = sample(patched, turns, prompt(model, 200), steps=4)
    assert torch.equal(sample(without_uuids(patched), turns, prompt(model, 200), steps=4), named)


@pytest.mark.parametrize("before", [5, 30])
def test_positions_beyond_a_prompt_stand_alone(model, before):
    """Another prompt than the one that was given may be shorter: here 7 tokens, of which the first is the start."""
    text = " ".join(["word"] * before) + " a cat with hat"
    patched = with_pictures(model, phrase_source="prompt", prompt=text)
    assert differ(picture(patched), picture(with_pictures(model))) < 1e-6


# purity


def test_the_model_that_came_in_stays_as_it_was(model):
    clone = model.clone()
    bare = picture(model)
    patched = with_pictures(model)
    assert differ(picture(patched), bare) > 1e-2
    assert torch.equal(picture(model), bare)
    assert torch.equal(picture(clone), bare)
    assert torch.equal(picture(patched), picture(patched))


def test_two_nodes_of_equal_settings_are_one_chain(model):
    adapter = adapter_of("weights_sd15_ip_adapter")
    chain = references_of(["a cat", "hat"])
    two = with_pictures(
        with_pictures(model, adapter=adapter, references=chain[:1]), adapter=adapter, references=chain[1:]
    )
    assert differ(picture(two), picture(with_pictures(model, adapter=adapter, references=chain))) < 1e-5


def test_two_nodes_of_other_settings_add_up(model):
    """At the end of the UNet's first block nothing else has happened yet: there the sum can be seen."""
    chain = references_of(["a cat", "hat"])
    outputs = {}
    for name, models in {
        "none": [],
        "first": [(chain[:1], 0.5)],
        "second": [(chain[1:], 0.25)],
        "both": [(chain[:1], 0.5), (chain[1:], 0.25)],
    }.items():
        patched = model
        for references, scale in models:
            patched = with_pictures(patched, references=references, scale=scale)
        patched = patched.clone()
        outputs[name] = []
        patched.set_model_attn2_output_patch(lambda n, options, seen=outputs[name]: seen.append(n) or n)
        picture(patched, steps=1)
    first = {name: seen[0] for name, seen in outputs.items()}
    expected = first["none"] + sum(first[name] - first["none"] for name in ("first", "second"))
    assert differ(first["both"], expected) < 1e-5


def test_two_nodes_need_words(model):
    adapter = adapter_of("weights_sd15_ip_adapter")
    one = with_pictures(model, ("",), adapter=adapter)
    with pytest.raises(ValueError, match="reference 1 has no word"):
        with_pictures(one, ("hat",), adapter=adapter)


# sizes, batches, dtypes


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("size", [(15, 13), (17, 24), (9, 57), (8, 8)])
def test_odd_sizes(kind, size):
    model = tiny_model(kind)
    patched = with_pictures(model, ("a cat", "hat", "big red car"), regions=[half_mask(), None, half_mask(9, 31)])
    out = picture(patched, latent=(1, 4, *size), steps=1)
    assert torch.isfinite(out).all()
    assert differ(out, picture(model, latent=(1, 4, *size), steps=1)) > 1e-3


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("batch", [2, 3])
def test_each_image_of_a_batch_is_as_alone(kind, batch):
    model = tiny_model(kind)
    patched = with_pictures(model)
    noise = draw(batch, 4, 8, 8)
    together = sample(patched, prompt(model, 100), prompt(model, 200), latent=(batch, 4, 8, 8), noise=noise)
    for row in range(batch):
        alone = sample(patched, prompt(model, 100), prompt(model, 200), noise=noise[row : row + 1])
        assert differ(together[row], alone[0]) < 1e-3


@pytest.mark.parametrize("dtype", few_of([torch.float16, torch.bfloat16], torch.float16), ids=str)
@pytest.mark.parametrize("kind", few_of(["sd15", "sdxl"], "sd15"))
def test_half_precision_unet(kind, dtype):
    """The technique shows through the rounding, by far; its own rounding is tested with its kernel."""
    outputs = {}
    for name, patch in (("bare", lambda m: m), ("patched", with_pictures)):
        for d in (torch.float32, dtype):
            model, calls = recording(patch(tiny_model(kind, dtype=d)))
            picture(model, steps=1)
            outputs[name, d] = calls.calls[0].cond.float()
    assert outputs["patched", dtype].isfinite().all()
    effect = (outputs["patched", torch.float32] - outputs["bare", torch.float32]).norm()
    assert (outputs["patched", dtype] - outputs["patched", torch.float32]).norm() < 0.25 * effect


def test_other_unets():
    v_prediction = tiny_model("sd15", model_type=comfy.model_base.ModelType.V_PREDICTION, seed=3)
    assert differ(picture(with_pictures(v_prediction)), picture(v_prediction)) > 1e-3
    inpainting = tiny_model("sd15", in_channels=9, seed=4)
    values = {"concat_mask": torch.ones(1, 1, 64, 64), "concat_latent_image": draw(1, 4, 8, 8)}
    texts = [[c[0], values] for c in prompt(inpainting, 100)]
    assert differ(sample(with_pictures(inpainting), texts, texts), sample(inpainting, texts, texts)) > 1e-3


# calls of the host


def test_cfg_1_has_conditional_rows_only(model):
    assert differ(picture(with_pictures(model), cfg=1.0), picture(model, cfg=1.0)) > 1e-2


def test_several_positives(model):
    patched = with_pictures(model)
    one = sample(patched, prompt(model, 300), prompt(model, 200))
    assert differ(sample(patched, prompt(model, 300) * 2, prompt(model, 200)), one) < 1e-5
    both = prompt(model, 100) + prompt(model, 300)
    assert differ(sample(patched, both, prompt(model, 200)), sample(model, both, prompt(model, 200))) > 1e-2


@pytest.mark.parametrize("source", ["standalone", "prompt"])
def test_halves_in_separate_calls_are_as_together(model, source):
    patched = with_pictures(model, phrase_source=source, prompt="a cat and hat")
    negative = prompt(model, 200, tokens=7)
    together = sample(patched, prompt(model, 100), negative)

    def split(executor, base, conds, *args):
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    apart = patched.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "split", split)
    assert differ(sample(apart, prompt(model, 100), negative), together) < 1e-4


def test_an_area_sees_its_part_of_the_regions(model):
    """A positive for the left half alone, with a region over the right half only: no image part in it."""
    right = 1 - half_mask(64, 128)
    chain = references_of(["a cat"], regions=[right])
    patched = with_pictures(model, references=chain)
    area = [[prompt(model, 100)[0][0], {"area": (8, 8, 0, 0)}]]
    size = {"latent": (1, 4, 8, 16), "steps": 1, "cfg": 1.0}
    ours, plain = (sample(m, area, prompt(model, 200), **size) for m in (patched, model))
    assert differ(ours, plain) < 1e-5
    area[0][1]["area"] = (8, 8, 0, 8)
    ours, plain = (sample(m, area, prompt(model, 200), **size) for m in (patched, model))
    assert differ(ours, plain) > 1e-3


@pytest.mark.parametrize(
    "sampler", few_of(["heun", "dpm_2", "dpmpp_2s_ancestral", "euler_ancestral", "lcm", "ddim"], "dpmpp_2s_ancestral")
)
def test_samplers(model, sampler):
    assert differ(picture(with_pictures(model), sampler=sampler), picture(model, sampler=sampler)) > 1e-2


# work and memory


def test_pictures_and_words_are_read_once(model):
    """When the node runs, and not when it samples."""
    clip, vision = TinyWords(model), GreyVision()
    patched = with_pictures(model, clip=clip, clip_vision=vision)
    assert (sorted(clip.encoded), vision.calls) == (["a cat", "hat"], 2)
    for seed in range(2):
        picture(patched, seed=seed)
    assert (len(clip.encoded), vision.calls) == (2, 2)


def test_a_joint_merge_reads_no_words(model):
    clip = TinyWords(model)
    picture(with_pictures(model, ("", ""), clip=clip, merge="joint"))
    assert not clip.encoded


@pytest.mark.slow
def test_a_hundred_runs_leave_nothing(model):
    import psutil

    patched = with_pictures(model)
    process = psutil.Process()
    for seed in range(20):
        picture(patched, seed=seed, steps=1)
    before = process.memory_info().rss
    for seed in range(100):
        picture(patched, seed=seed, steps=1)
    assert process.memory_info().rss < 1.01 * before


def open_runs():
    found = gc.get_objects()
    return [one for one in found if isinstance(one, image_run.ImageRun) or (isinstance(one, Run) and one.guider)]


def test_interrupt_at_each_step_leaves_nothing(model):
    patched = with_pictures(model)
    whole = picture(patched)
    for stop in range(3):

        def interrupt(step, *args, stop=stop):
            if step == stop:
                assert open_runs()
                raise comfy.model_management.InterruptProcessingException

        with pytest.raises(comfy.model_management.InterruptProcessingException):
            picture(patched, callback=interrupt)
        gc.collect()
        assert not open_runs()
    assert torch.equal(picture(patched), whole)


# maps


def maps(model, samples, images=None):
    return execute(MIPMaps, model=model, samples={"samples": samples}, images=images)[0]


def test_maps_are_of_the_run_that_made_the_samples(model):
    patched = with_pictures(model)
    first, second = picture(patched, seed=1), picture(patched, seed=2)
    of_first, of_second = maps(patched, first), maps(patched, second)
    assert of_first.shape == (2, 64 + 30, 64, 3) and of_first.min() >= 0 and of_first.max() <= 1
    assert not torch.equal(of_first, of_second)
    assert torch.equal(maps(patched, first), of_first)
    # a clone with a further patch is the same technique
    assert torch.equal(maps(patched.clone(), first), of_first)


def test_shares_of_all_references_are_the_whole(model):
    patched = with_pictures(model, ("a cat", "hat", "red car"))
    samples = picture(patched, latent=(2, 4, 9, 12))
    (technique,) = techniques_of(patched)
    kept = record_of(technique, samples)
    assert [words for words, _ in kept] == ["a cat", "hat", "red car"]
    shares = torch.stack([share for _, share in kept])
    assert shares.shape == (3, 2, 9, 12)
    torch.testing.assert_close(shares.sum(0), torch.ones(2, 9, 12))
    assert not torch.equal(shares[:, 0], shares[:, 1])


def test_shares_follow_regions(model):
    left = half_mask(64, 64)
    for inputs in ({"words": ("a cat",), "regions": [left]}, {"regions": [left, left], "merge": "joint"}):
        patched = with_pictures(model, **inputs)
        samples = picture(patched)
        kept = record_of(techniques_of(patched)[0], samples)
        total = sum(share for _, share in kept)
        assert (total[..., :3] > 0.9).all() and (total[..., -3:] < 0.1).all()


def test_maps_over_images(model):
    patched = with_pictures(model)
    samples = picture(patched, latent=(2, 4, 8, 8))
    images = torch.rand(2, 64, 64, 3)
    drawn = maps(patched, samples, images)
    assert drawn.shape == (4, 94, 64, 3)
    # each picture's two maps lie over its own image, which shows through in grey
    grey = images.mean(-1, keepdim=True).repeat_interleave(2, 0)
    expected = 0.65 * maps(patched, samples)[:, :64] + 0.35 * grey
    torch.testing.assert_close(drawn[:, :64], expected.expand(-1, -1, -1, 3), atol=1.1 / 255, rtol=0)


def test_a_single_reference_has_a_map_for_every_picture(model):
    latent = (2, 4, 8, 8)
    alone = with_pictures(model, ("red car",))
    assert len(maps(alone, picture(alone, latent=latent))) == 2
    beside = with_pictures(with_pictures(model), ("red car",), scale=0.4)
    assert len(maps(beside, picture(beside, latent=latent))) == 6


def test_maps_of_something_else_are_refused(model):
    patched = with_pictures(model)
    picture(patched)
    with pytest.raises(ValueError, match="has no MIP-Adapter"):
        maps(model, draw(1, 4, 8, 8))
    with pytest.raises(ValueError, match="not from a recent run of this MODEL"):
        maps(patched, draw(1, 4, 8, 8))
    samples = picture(patched, latent=(2, 4, 8, 8))
    with pytest.raises(ValueError, match="images has 3 pictures for 2 samples"):
        maps(patched, samples, torch.rand(3, 64, 64, 3))


# bad inputs


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"scale": float("nan")}, "scale is nan"),
        ({"merge_power": -1.0}, "merge_power is -1"),
        ({"start_percent": 0.7, "end_percent": 0.2}, "is after end_percent"),
        ({"words": ("a cat", "")}, "reference 2 has no word"),
        ({"adapter": lambda: adapter_of("weights_sdxl_base")}, "made for"),
        ({"clip": lambda: TinyWords(tiny_model("sdxl"))}, "this CLIP's embeddings are 48 wide, the model expects 32"),
        ({"clip": None}, "clip is empty"),
        ({"clip_vision": None}, "clip_vision is empty"),
        ({"clip_vision": GreyVision(30)}, "expects image_embeds of 24"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(model, inputs, words):
    inputs = {name: value() if callable(value) else value for name, value in inputs.items()}
    with pytest.raises(ValueError, match=words):
        with_pictures(model, **inputs)


def test_another_kind_of_model_is_refused():
    class NoUNet:
        model = type("Flux", (), {"diffusion_model": torch.nn.Linear(1, 1)})()

    with pytest.raises(ValueError, match="needs a UNet with cross-attention"):
        execute(
            MIPAdapter,
            model=NoUNet(),
            adapter=adapter_of("weights_sd15_ip_adapter"),
            clip=None,
            clip_vision=None,
            references=references_of(["a cat"]),
        )


def test_a_clip_without_sd_tokens_is_refused(model):
    class Other(TinyWords):
        def tokenize(self, text):
            return {"t5xxl": [[(3, 1.0), (1, 1.0)]]}

    with pytest.raises(ValueError, match="does not read text as Stable Diffusion"):
        with_pictures(model, clip=Other(model))


def test_a_long_word_is_cut_and_said(model, caplog):
    class Long(TinyWords):
        def tokenize(self, text):
            tokens = super().tokenize(text)
            if text == "long":
                chunk = [(START_ID, 1.0), *((5, 1.0) for _ in range(75)), (END_ID, 1.0)]
                tokens["l"] = [chunk, chunk]
            return tokens

    START_ID, END_ID = 49406, 49407
    out = picture(with_pictures(model, ("long", "hat"), clip=Long(model)))
    assert "longer than 75 tokens" in caplog.text and torch.isfinite(out).all()
