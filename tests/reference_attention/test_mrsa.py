"""MRSA by property: off is nothing, nothing leaks, and every size, dtype, batch and sampler works."""

import comfy.model_base
import comfy.model_management
import comfy.samplers
import pytest
import torch
from support.compare import differ
from support.models import execute, recording, sample, tiny_model
from support.references import PixelVAE, TinyClip, draw, half_mask, picture, prompt, references, with_references
from support.thorough import few_of

from pack.nodes.reference_attention import entry_reader, mrsa
from pack.nodes.references.references_node import AddReference


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


# off is nothing


def thin_mask():
    """A line that no token of the grids falls on."""
    mask = torch.zeros(1, 64, 64)
    mask[:, 7] = 1
    return mask


@pytest.mark.parametrize(
    "inputs",
    [
        {"references": ()},
        {"references": None},
        {"weight": 0.0},
        {"references": lambda: references(2, strength=[0.0, 0.0])},
        {"references": lambda: references(2, masks=[thin_mask()] * 2)},
    ],
    ids=["no references", "None", "weight 0", "strength 0", "masks that keep no token"],
)
def test_off_is_bit_equal(model, inputs):
    inputs = {name: value() if callable(value) else value for name, value in inputs.items()}
    assert torch.equal(picture(with_references(model, **inputs)), picture(model))


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_mask_of_one_value_is_the_whole_picture(model, value):
    """The host gives such masks for pictures without transparency."""
    marked = references(2, masks=[torch.full((1, 128, 128), value)] * 2)
    whole = references(2, masks=[None, None])
    assert torch.equal(picture(with_references(model, marked)), picture(with_references(model, whole)))


def test_outside_the_window_is_bit_equal(model):
    bare, bare_calls = recording(model)
    picture(bare, steps=4)
    patched, calls = recording(with_references(model, start_percent=0.4))
    picture(patched, steps=4)
    sampling = model.get_model_object("model_sampling")
    start = sampling.percent_to_sigma(0.4)
    assert calls.calls[0].sigma > start > calls.calls[-1].sigma
    for ours, plain in zip(calls.calls, bare_calls.calls, strict=True):
        if ours.sigma > start:
            assert torch.equal(ours.cond, plain.cond)
        else:
            assert differ(ours.cond, plain.cond) > 1e-3
            break


def test_a_closed_window_of_the_end(model):
    assert torch.equal(picture(with_references(model, start_percent=1.0)), picture(model))


def test_a_window_and_the_noise_follow_the_level_where_levels_rise(model, monkeypatch):
    """A run back to noise (Flip Sigmas) reads the references at the levels at which the way down reads them."""
    sampling = model.get_model_object("model_sampling")
    levels = comfy.samplers.calculate_sigmas(sampling, "normal", 6)
    limit = float(sampling.percent_to_sigma(0.5))
    ours, real, seen = with_references(model, references(1), end_percent=0.5, cache_mb=0), mrsa.reference_noise, []
    monkeypatch.setattr(mrsa, "reference_noise", lambda *args: (seen.append(args[2]), real(*args))[1])
    expected = [int(sampling.timestep(level[None])[0]) for level in levels if level >= limit]
    sample(ours, prompt(model, 100), prompt(model, 200), sigmas=levels)
    down = list(seen)
    seen.clear()
    rising = levels.flip(0)
    # as the host's node has it
    rising[0] = 0.0001
    sample(ours, prompt(model, 100), prompt(model, 200), sigmas=rising, noise=torch.zeros(1, 4, 8, 8))
    # a run does not evaluate where it ends
    assert down == expected and seen == expected[:0:-1]


def test_strength_is_continuous_down_to_zero(model):
    bare = picture(model, steps=1)
    strengths = (1, 1e-3, 1e-6, 1e-9)
    changes = [differ(picture(with_references(model, references(1, strength=[s])), steps=1), bare) for s in strengths]
    assert changes == sorted(changes, reverse=True) and changes[0] > 0.1 and changes[-1] < 1e-4


@pytest.mark.parametrize(("beyond", "within"), [(50.0, 20.0), (-50.0, -20.0)])
def test_weights_beyond_all_sense_are_the_strongest(model, beyond, within):
    """Half precision cannot carry any number."""
    ours, edge = (picture(with_references(model, weight=weight), steps=1) for weight in (beyond, within))
    assert torch.equal(ours, edge)


def test_unconditional_rows_stay_plain_at_fidelity_1(model):
    bare, bare_calls = recording(model)
    picture(bare, steps=1)
    patched, calls = recording(with_references(model))
    picture(patched, steps=1)
    assert differ(calls.calls[0].uncond, bare_calls.calls[0].uncond) < 1e-5
    assert differ(calls.calls[0].cond, bare_calls.calls[0].cond) > 1e-2


@pytest.mark.parametrize(("beyond", "within"), [(1.7, 1.0), (-0.5, 0.0)])
def test_fidelity_is_a_share(model, beyond, within):
    """More than all of plain attention, and less than nothing of it, are all and nothing."""
    ours, edge = (picture(with_references(model, style_fidelity=fidelity), steps=1) for fidelity in (beyond, within))
    assert torch.equal(ours, edge)


def test_fidelity_blends_at_the_attention(model):
    """With one patched block at the end of the UNet, fidelity is linear in what that block adds."""
    outputs = {}
    for fidelity in (0.0, 0.25, 1.0):
        patched = with_references(model, style_fidelity=fidelity, blocks="custom", custom_blocks="15").clone()
        seen = []
        patched.set_model_attn1_output_patch(
            lambda n, options, seen=seen: (seen.append(n[options["cond_or_uncond"].index(1)]), n)[1]
        )
        picture(patched, steps=1)
        outputs[fidelity] = seen[-1]
    assert differ(outputs[0.0], outputs[1.0]) > 1e-2
    assert differ(outputs[0.25], 0.75 * outputs[0.0] + 0.25 * outputs[1.0]) < 1e-5


# purity


def test_the_model_that_came_in_stays_as_it_was(model):
    clone = model.clone()
    bare = picture(model)
    patched = with_references(model)
    assert differ(picture(patched), bare) > 1e-2
    assert torch.equal(picture(model), bare)
    assert torch.equal(picture(clone), bare)
    assert torch.equal(picture(patched), picture(patched))


def test_two_nodes_are_one_chain(model, monkeypatch):
    """References of two MRSA nodes share one softmax, in node order."""
    # each node numbers its own references, so give all of them the same noise
    monkeypatch.setattr(mrsa, "reference_noise", lambda seed, index, step, like: draw(*like.shape))
    chain = references(2)
    two_nodes = with_references(with_references(model, chain[:1]), chain[1:])
    assert differ(picture(two_nodes), picture(with_references(model, chain))) < 1e-5


# sizes, batches, dtypes


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("size", few_of([(15, 13), (17, 24), (9, 57), (8, 8)], (9, 57)))
def test_odd_sizes(kind, size):
    model = tiny_model(kind)
    chain = references(3, sizes=((16, 16), (13, 21), (9, 8)))
    out = picture(with_references(model, chain, blocks="all", style_fidelity=0.5), latent=(1, 4, *size), steps=1)
    assert torch.isfinite(out).all()
    assert differ(out, picture(model, latent=(1, 4, *size), steps=1)) > 1e-3


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_each_image_of_a_batch_is_as_alone(model, batch):
    patched = with_references(model, style_fidelity=0.5)
    noise = draw(batch, 4, 8, 8)
    together = sample(patched, prompt(model, 100), prompt(model, 200), latent=(batch, 4, 8, 8), noise=noise)
    for row in range(batch):
        alone = sample(patched, prompt(model, 100), prompt(model, 200), noise=noise[row : row + 1])
        assert differ(together[row], alone[0]) < 1e-3


@pytest.mark.parametrize("dtype", few_of([torch.float16, torch.bfloat16], torch.float16), ids=str)
@pytest.mark.parametrize("kind", few_of(["sd15", "sdxl"], "sd15"))
def test_half_precision_unet(kind, dtype):
    """The patched UNet in half precision errs at most three times as much as the bare one does."""
    errors = {}
    for name in ("bare", "patched"):
        outputs = []
        for d in (torch.float32, dtype):
            model, found = tiny_model(kind, dtype=d), []
            # over several draws of both noises, since that of one is luck
            for seed in range(4):
                patched = model if name == "bare" else with_references(model, reference_seed=seed)
                recorded, calls = recording(patched)
                picture(recorded, steps=1, seed=seed)
                found += [call.cond.double() for call in calls.calls]
            outputs.append(torch.stack(found))
        assert outputs[1].isfinite().all()
        errors[name] = float((outputs[1] - outputs[0]).norm() / outputs[0].norm())
    assert errors["patched"] < 3 * errors["bare"]


def test_references_of_other_sizes_and_text_lengths(model):
    """Rows that cannot share a pass get passes of their own, with the result of each alone."""
    chain = references(2, sizes=((16, 16), (12, 20)))
    clip = TinyClip(model)
    lengths = iter([7, 11])
    clip.encode_from_tokens_scheduled = lambda tokens: prompt(model, sum(tokens.encode()), tokens=next(lengths))
    out = picture(with_references(model, chain, clip=clip))
    assert torch.isfinite(out).all()


def test_a_reference_is_told_by_its_prompt_or_else_by_its_word(model):
    told = []

    class Noting(TinyClip):
        def encode_from_tokens_scheduled(self, tokens):
            told.append(tokens)
            return super().encode_from_tokens_scheduled(tokens)

    chain = ()
    for texts in ({"word": "dog", "prompt": "a dog by the sea"}, {"word": "hat"}, {}):
        (chain,) = execute(AddReference, image=torch.rand(1, 64, 64, 3), references=chain, **texts)
    with_references(model, chain, clip=Noting(model))
    assert told == ["a dog by the sea", "hat", ""]


# calls of the host


def test_cfg_1_has_conditional_rows_only(model):
    assert differ(picture(with_references(model), cfg=1.0), picture(model, cfg=1.0)) > 1e-2


def test_several_positives(model):
    """Every conditional chunk reads the references."""
    patched = with_references(model)
    both = prompt(model, 100) + prompt(model, 300)
    one = sample(patched, prompt(model, 300), prompt(model, 200))
    assert differ(sample(patched, prompt(model, 300) * 2, prompt(model, 200)), one) < 1e-5
    assert differ(sample(patched, both, prompt(model, 200)), sample(model, both, prompt(model, 200))) > 1e-2


def test_halves_in_separate_calls_are_as_together(model):
    """Texts of other lengths make the host call the UNet once per half."""
    patched = with_references(model, style_fidelity=0.5)
    negative = prompt(model, 200, tokens=7)
    together = sample(patched, prompt(model, 100), negative)
    calls = []

    def split(executor, base, conds, *args):
        calls.append(len(conds))
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    apart = patched.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "split", split)
    assert differ(sample(apart, prompt(model, 100), negative), together) < 1e-4
    assert calls


@pytest.mark.parametrize(
    "sampler",
    few_of(["heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_sde", "euler_ancestral", "lcm", "ddim"], "heun", "lcm"),
)
def test_noise_is_drawn_once_per_step(model, sampler, monkeypatch):
    drawn = []
    real = mrsa.reference_noise

    def noted(seed, index, step, like):
        drawn.append((seed, index, step))
        return real(seed, index, step, like)

    monkeypatch.setattr(mrsa, "reference_noise", noted)
    picture(with_references(model, cache_mb=0, reference_seed=5), sampler=sampler, steps=3)
    # the timesteps at which the three steps begin; two-evaluation samplers add no further step
    levels = comfy.samplers.KSampler(model, 3, torch.device("cpu"), sampler, "normal").sigmas[:3]
    assert {step for _, _, step in drawn} <= {int(model.model.model_sampling.timestep(level)) for level in levels}
    assert {seed for seed, _, _ in drawn} == {5} and {index for _, index, _ in drawn} == {0, 1}


def test_fixed_noise_is_one_draw(model, monkeypatch):
    steps = set()
    real = mrsa.reference_noise
    monkeypatch.setattr(
        mrsa, "reference_noise", lambda seed, i, step, like: (steps.add(step), real(seed, i, step, like))[1]
    )
    picture(with_references(model, reference_noise="fixed", cache_mb=0))
    assert steps == {0}


def test_switching_a_reference_off_changes_no_other_noise(model, monkeypatch):
    drawn = set()
    real = mrsa.reference_noise
    monkeypatch.setattr(
        mrsa, "reference_noise", lambda seed, i, step, like: (drawn.add(i), real(seed, i, step, like))[1]
    )
    masks = [half_mask(), half_mask(), thin_mask(), half_mask()]
    picture(with_references(model, references(4, masks=masks, strength=[0.0, 1.0, 1.0, 1.0]), cache_mb=0), steps=1)
    assert drawn == {1, 3}


def test_reference_noise():
    like = torch.zeros(1, 4, 32, 32)
    noise = mrsa.reference_noise(1, 2, 3, like)
    assert noise.shape == like.shape and abs(noise.std() - 1) < 0.05 and abs(noise.mean()) < 0.05
    assert torch.equal(noise, mrsa.reference_noise(1, 2, 3, like))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (12, 3, 0), (1, 23, 0)):
        assert not torch.equal(noise, mrsa.reference_noise(*other, like))


def test_the_sampler_seed_does_not_change_the_references(model, monkeypatch):
    """A second picture with another seed finds all keys and values in the bank."""
    passes = []
    real = entry_reader.caught
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (passes.append(1), real(*args))[1])
    patched = with_references(tiny_model("sd15"))
    first = picture(patched, seed=1)
    assert len(passes) == 3
    second = picture(patched, seed=2)
    assert len(passes) == 3 and differ(first, second) > 1e-2
    assert torch.equal(picture(patched, seed=1), first)


# other models


def test_v_prediction_unet():
    model = tiny_model("sd15", model_type=comfy.model_base.ModelType.V_PREDICTION, seed=3)
    assert differ(picture(with_references(model)), picture(model)) > 1e-3


def test_sd2_unet():
    model = tiny_model("sd2", seed=5)
    assert differ(picture(with_references(model)), picture(model)) > 1e-3


def test_inpainting_unet_sees_the_reference_as_unmasked(monkeypatch):
    model = tiny_model("sd15", in_channels=9, seed=4)
    seen = []
    real = entry_reader.caught

    def look(call, x, *rest):
        seen.append(x)
        return real(call, x, *rest)

    monkeypatch.setattr(entry_reader, "caught", look)
    vae = PixelVAE()
    chain = references(1)
    patched = with_references(model, chain, vae=vae)
    mask = torch.ones(1, 1, 64, 64)
    values = {"concat_mask": mask, "concat_latent_image": draw(1, 4, 8, 8)}
    texts = [[c[0], values] for c in prompt(model, 100)]
    out = sample(patched, texts, texts)
    assert torch.isfinite(out).all()
    latent = model.model.process_latent_in(vae.encode(chain[0].image))
    for x in seen:
        assert x.shape[1] == 9
        assert torch.equal(x[:, 4:5], torch.zeros_like(x[:, 4:5]))
        torch.testing.assert_close(x[:, 5:], latent)


def test_soft_masks_and_regions(model):
    soft = half_mask() * 0.5
    region = half_mask(16, 16)
    patched = with_references(model, references(2, masks=[soft, soft], region=[region, None]))
    assert torch.isfinite(picture(patched)).all()
    free = with_references(model, references(2, masks=[soft, soft]))
    assert differ(picture(patched), picture(free)) > 1e-3


def test_a_region_over_everything_is_no_region(model):
    everywhere = with_references(model, references(2, region=[torch.ones(1, 9, 9)] * 2))
    assert differ(picture(everywhere), picture(with_references(model))) < 1e-4


def test_a_region_over_nothing_is_no_reference(model):
    nowhere = with_references(model, references(2, region=[torch.full((1, 9, 9), 1e-30)] * 2))
    assert differ(picture(nowhere), picture(model)) < 1e-4


# memory and state


@pytest.mark.slow
def test_a_hundred_runs_leave_nothing(model):
    import psutil

    patched = with_references(model, cache_mb=4)
    process = psutil.Process()
    for seed in range(20):
        picture(patched, seed=seed, steps=1)
    before = process.memory_info().rss
    for seed in range(100):
        picture(patched, seed=seed, steps=1)
    assert process.memory_info().rss < 1.01 * before


def test_with_little_memory_references_run_in_several_passes(monkeypatch):
    """As many at once as fit, halved until they do; the picture is the same."""
    model = tiny_model("sd15", dtype=torch.float64)
    patched = with_references(model, references(5), cache_mb=0)
    rows = []
    model.model.diffusion_model.time_embed.register_forward_hook(lambda layer, args, out: rows.append(len(out)))
    whole = picture(patched, steps=1, cfg=1.0)
    assert rows == [5, 1]
    rows.clear()

    def room_for_two(shape, **kwargs):
        # by the host's own rule, and far enough from its edge that other programs do not matter
        return shape[0] * comfy.model_management.get_free_memory(torch.device("cpu")) / (2.5 * 1.5)

    monkeypatch.setattr(model.model, "memory_required", room_for_two)
    parted = picture(patched, steps=1, cfg=1.0)
    assert rows == [2, 2, 1, 1]
    assert differ(parted, whole) < 1e-6


def test_memory_of_the_pass_is_announced(model):
    shapes = []
    patched = with_references(model, references(3, sizes=((32, 16),)))
    patched.add_wrapper_with_key(
        "prepare_sampling",
        "look",
        lambda executor, m, shape, *a, **k: (shapes.append(list(shape)), executor(m, shape, *a, **k))[1],
    )
    picture(patched, steps=1)
    # three references of eight times the picture's area beside its one row
    assert shapes == [[1 + 3 * 8, 4, 8, 8]]
