"""DreamTuner, Reference Only and Reference Guidance by property: off is nothing, rows and orders do not matter."""

import pytest
import torch
from node_helpers import conditioning_set_values
from support.compare import differ
from support.models import recording, sample, tiny_model
from support.reference_family import dreamtuner, guided, guided_dreamtuner, reference_only
from support.references import draw, half_mask, picture, prompt, references, with_references
from support.thorough import few_of

from pack.nodes.host import messages
from pack.nodes.host.attach import techniques_of
from pack.nodes.reference_attention import entry_reader, mrsa, reference_guidance, reference_pass
from pack.nodes.reference_attention.block_outputs import places_of


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


KOALA = {
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
    "transformer_depth_middle": 1,
}
NODES = {"DreamTuner": dreamtuner, "Reference Only": reference_only}
ALL = {**NODES, "guided": guided_dreamtuner}
ALL["three terms"] = lambda model: guided_dreamtuner(model, mode="three terms")


def test_off_is_bit_equal(model):
    bare = picture(model)
    for chain in ((), None, references(1, strength=[0.0])):
        for node in NODES.values():
            assert torch.equal(picture(node(model, chain if chain is not None else ())), bare)
    assert torch.equal(picture(dreamtuner(model, omega=0.0)), bare)
    assert torch.equal(picture(reference_only(model, attention=0.0, adain=0.0)), bare)
    referred = dreamtuner(model)
    unguided = picture(referred)
    for off in ({"reference_scale": 0.0}, {"share": 0.0}, {"mode": "three terms", "reference_scale": 0.0}):
        assert torch.equal(picture(guided(referred, **off)), unguided)


@pytest.mark.parametrize("what", ALL)
def test_it_acts_and_leaves_the_model_as_it_was(model, what):
    bare = picture(model)
    patched = ALL[what](model)
    assert differ(picture(patched), bare) > 1e-2
    assert torch.equal(picture(patched), picture(patched))
    assert torch.equal(picture(model), bare)
    assert not any(module._forward_hooks for module in model.model.diffusion_model.modules())


@pytest.mark.parametrize("what", ALL)
@pytest.mark.parametrize("kind", few_of(["sd15", "sd2", "sdxl"], "sd15"))
def test_each_image_of_a_batch_is_as_alone(what, kind):
    model = tiny_model(kind, seed=5 if kind == "sd2" else None)
    patched, size = ALL[what](model), (9, 15)
    noise = draw(3, 4, *size)
    texts = prompt(model, 100), prompt(model, 200)
    together = sample(patched, *texts, latent=(3, 4, *size), noise=noise, steps=2)
    assert torch.isfinite(together).all()
    for row in range(3):
        alone = sample(patched, *texts, latent=(1, 4, *size), noise=noise[row : row + 1], steps=2)
        assert differ(together[row], alone[0]) < 1e-3


@pytest.mark.parametrize("dtype", few_of([torch.float16, torch.bfloat16], torch.float16), ids=str)
@pytest.mark.parametrize("what", ALL)
def test_half_precision(what, dtype):
    """The patched UNet in half precision errs at most three times as much as the bare one does."""
    errors = {}
    for name, node in (("bare", lambda model: model), ("patched", ALL[what])):
        exact, half = (picture(node(tiny_model("sd15", dtype=d)), steps=1).double() for d in (torch.float32, dtype))
        errors[name] = differ(half, exact)
    assert errors["patched"] < 3 * errors["bare"] + 1e-3


@pytest.mark.parametrize("what", ALL)
def test_two_stages_are_one_run(model, what):
    patched = ALL[what](model)
    whole = picture(patched, steps=4)
    half = picture(patched, steps=4, last_step=2, force_full_denoise=False)
    again = {"noise": torch.zeros_like(half), "disable_noise": True}
    assert differ(picture(patched, latent=half, steps=4, start_step=2, **again), whole) < 1e-4


@pytest.mark.parametrize("what", ALL)
@pytest.mark.parametrize("sampler", few_of(["heun", "dpmpp_2s_ancestral", "dpmpp_sde"], "dpmpp_2s_ancestral"))
def test_samplers_of_two_evaluations(model, what, sampler):
    assert torch.isfinite(picture(ALL[what](model), sampler=sampler)).all()


def test_both_evaluations_of_a_step_are_guided_alike(model, monkeypatch):
    draws = {}

    def seeded(name, shape):
        draws.setdefault(name, 0)
        draws[name] += 1
        return torch.zeros(shape)

    monkeypatch.setattr(reference_guidance, "seeded_noise", seeded)
    picture(guided(dreamtuner(model)), sampler="heun", steps=4)
    assert len(draws) == 4 and max(draws.values()) == 2


def test_cfg_1_needs_no_negative(model):
    for what, node in ALL.items():
        found = sample(node(model), prompt(model, 100), prompt(model, 200), cfg=1.0, steps=2)
        assert torch.isfinite(found).all(), what
    # a step that is guided by the references comes out alike whatever the cfg
    always = guided(dreamtuner(model), share=1.0)
    one, seven = (sample(always, prompt(model, 100), prompt(model, 200), cfg=cfg, steps=2) for cfg in (1.0, 7.0))
    assert differ(one, seven) < 1e-5


def test_guidance_of_1_is_what_the_prompt_gives_with_references(model):
    """p + 1 (c - p) = c, whatever p is."""
    always = guided(dreamtuner(model), share=1.0, reference_scale=1.0, time_shift=0)
    found = sample(always, prompt(model, 100), prompt(model, 200), cfg=7.0, steps=2)
    assert differ(found, sample(dreamtuner(model), prompt(model, 100), prompt(model, 200), cfg=1.0, steps=2)) < 1e-5


def test_three_terms_of_scale_1_are_plain_guidance(model):
    """p + 1 (n - p) = n: what cfg alone makes of rows that all read the references."""
    terms = guided(dreamtuner(model), mode="three terms", reference_scale=1.0)
    assert differ(picture(terms, cfg=7.0), picture(dreamtuner(model), cfg=7.0)) < 2e-4


@pytest.mark.parametrize("mode", ["interleaved", "three terms"])
def test_sides_that_a_pack_runs_one_by_one_are_guided_as_together(model, mode, caplog):
    def one_by_one(executor, base, conds, *args):
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    # of three steps one is guided by the prompt
    joint = guided(dreamtuner(model), mode=mode, share=0.5, reference_scale=3.0)
    apart = joint.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "another pack", one_by_one)
    assert differ(picture(apart), picture(joint)) < 1e-4
    assert differ(picture(joint), picture(dreamtuner(model))) > 1e-2
    assert "left out" not in caplog.text


def test_guidance_acts_on_all_references_of_the_model_in_any_order(model):
    settings = {"share": 1.0, "reference_scale": 2.0}
    made = [
        guided(reference_only(dreamtuner(model)), **settings),
        reference_only(guided(dreamtuner(model), **settings)),
        dreamtuner(reference_only(guided(model, **settings))),
    ]
    first, *others = (picture(one, steps=2) for one in made)
    for other in others:
        assert differ(first, other) < 1e-5
    one_alone = picture(guided(dreamtuner(model), **settings), steps=2)
    assert differ(first, one_alone) > 1e-2


@pytest.mark.parametrize("mode", ["interleaved", "three terms"])
def test_other_packs_are_told_the_sides_of_guided_rows(model, mode):
    """As image adapters do, a patch picks one of two by the side of each row."""
    told, of_sides = [], (draw(1, 1, 32, seed=1), draw(1, 1, 32, seed=2))

    def picking(n, context, value, options):
        told.append(options["cond_or_uncond"])
        context = context + torch.cat([of_sides[side] for side in options["cond_or_uncond"]])
        return n, context, context

    patched = guided(dreamtuner(model), mode=mode, share=1.0, reference_scale=1.0, time_shift=0).clone()
    patched.set_model_attn2_patch(picking)
    found = picture(patched, steps=1)
    assert all(sorted(sides) == ([0, 0] if mode == "interleaved" else [0, 1, 1]) for sides in told) and told
    # at scale 1 as without guidance, at cfg 1 where the references alone guide
    plain = dreamtuner(model).clone()
    plain.set_model_attn2_patch(picking)
    assert differ(found, picture(plain, steps=1, **({"cfg": 1.0} if mode == "interleaved" else {}))) < 2e-4


def test_outside_the_window_of_all_references_guidance_does_nothing(model):
    patched, calls = recording(guided(dreamtuner(model, end_percent=0.4)))
    picture(patched, steps=4)
    end = model.get_model_object("model_sampling").percent_to_sigma(0.4)
    after = calls.calls[-1]
    assert after.sigma < end
    # what comes out is what the bare model makes of the same latent, with the negative beside the prompt
    again, seen = recording(model)
    noise, sigmas = after.x[:1], torch.tensor([after.sigma, 0.0])
    scale = (1 + after.sigma**2) ** 0.5 / after.sigma
    sample(again, prompt(model, 100), prompt(model, 200), noise=noise * scale, sigmas=sigmas)
    (plain,) = seen.calls
    assert differ(plain.cond, after.cond) < 1e-4 and differ(plain.uncond, after.uncond) < 1e-4


@pytest.mark.parametrize("first", [True, False])
def test_mrsa_and_reference_only_add_what_each_changes(model, first):
    """At one block behind which nothing lies but the output, what they change adds up."""
    last = {"blocks": "custom", "custom_blocks": "15", "style_fidelity": 0.0}
    alone = {"attention": 0.01, "adain": 0.0, "style_fidelity": 0.0}
    names = {"plain": model, "mrsa": with_references(model, references(1), **last)}
    names["only"] = reference_only(model, **alone)
    both = reference_only(names["mrsa"], **alone) if first else with_references(names["only"], references(1), **last)
    # blocks of their own, so each acts where the other does not
    changed = {name: picture(one, steps=1) for name, one in {**names, "both": both}.items()}
    assert differ(changed["both"], changed["mrsa"]) > 1e-4 and differ(changed["both"], changed["only"]) > 1e-4


def test_two_nodes_of_reference_only_are_one_chain(model, monkeypatch):
    monkeypatch.setattr(mrsa, "reference_noise", lambda seed, index, step, like: draw(*like.shape))
    chain = references(2)
    two = reference_only(reference_only(model, chain[:1]), chain[1:])
    assert differ(picture(two), picture(reference_only(model, chain))) < 1e-5


def test_adain_gives_features_the_statistics_of_the_reference(model, monkeypatch):
    """At the last place of all: what the UNet's last layers read has mean and deviation of the reference's."""
    kept, real = [], reference_pass.moments
    monkeypatch.setattr(reference_pass, "moments", lambda *args: (kept.append(real(*args)), kept[-1])[1])
    chain = references(1, masks=[None])
    patched = reference_only(model, chain, attention=0.0, adain=2.0, style_fidelity=0.0, reference_seed=5)
    read = []
    handle = model.model.diffusion_model.out.register_forward_pre_hook(
        lambda module, args: read.append(args[0].clone())
    )
    picture(patched, steps=1)
    handle.remove()
    # the reference beside the negative, and beside the prompt, at each of 21 places, the last one last
    assert len(kept) == 2 * 21
    (features,) = read
    for row, (mean, deviation) in zip(features, (kept[20], kept[41]), strict=True):
        of_row = real(row, torch.ones(8, 8))
        assert differ(of_row[0], mean) < 1e-4 and differ(of_row[1], deviation) < 1e-4


def test_places_of_adain():
    unet = tiny_model("sd15").model.diffusion_model
    whole = [*((("input", n)) for n in (1, 2, 4, 5, 7, 8, 10, 11)), ("middle", 0), *(("output", n) for n in range(12))]
    assert list(places_of(unet, 2.0)) == whole
    deep = [("input", 7), ("input", 8), ("input", 10), ("input", 11), ("middle", 0)]
    assert list(places_of(unet, 1.0)) == [*deep, *(("output", n) for n in range(9))]
    assert list(places_of(unet, 0.5)) == [*deep[2:], *(("output", n) for n in range(6))]
    assert places_of(unet, 1e-6) == (("middle", 0), ("output", 0), ("output", 1), ("output", 2))
    assert places_of(unet, 0.0) == ()
    unet = tiny_model("sdxl").model.diffusion_model
    whole = [*((("input", n)) for n in (1, 2, 4, 5, 7, 8)), ("middle", 0), *(("output", n) for n in range(9))]
    assert list(places_of(unet, 2.0)) == whole
    assert list(places_of(unet, 1.4)) == whole[2:]
    assert list(places_of(unet, 1.0)) == whole[4:13]
    assert list(places_of(unet, 0.5)) == whole[6:10]


def test_a_unet_of_one_block_per_level():
    """KOALA's, which the host takes for SDXL."""
    model = tiny_model("sdxl", seed=4, **KOALA)
    unet = model.model.diffusion_model
    assert places_of(unet, 1.0) == (("input", 5), ("middle", 0), *(("output", n) for n in range(4)))
    assert len(places_of(unet, 2.0)) == 3 + 1 + 6
    for amount in (1.0, 2.0):
        patched = reference_only(model, adain=amount)
        assert differ(picture(patched, steps=1), picture(reference_only(model, adain=0.0), steps=1)) > 1e-3


def test_a_further_picture_runs_no_reference(model, monkeypatch):
    passes, real = [], entry_reader.caught
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (passes.append(1), real(*args))[1])
    for node in NODES.values():
        patched = node(model, reference_seed=77)
        first = picture(patched, steps=3)
        ran = len(passes)
        assert ran
        assert torch.equal(picture(patched, steps=3), first) and len(passes) == ran
        passes.clear()


def test_after_an_error_nothing_hangs_on_the_model(model):
    patched = reference_only(model).clone()

    def fail(n, options):
        raise RuntimeError("in between")

    patched.set_model_attn2_output_patch(fail)
    with pytest.raises(RuntimeError, match="in between"):
        picture(patched)
    assert not any(module._forward_hooks for module in model.model.diffusion_model.modules())


def test_what_is_wrong_is_said(model, monkeypatch):
    with pytest.raises(ValueError, match="found no references on this MODEL; put it behind"):
        picture(guided(model))
    terms = guided(with_references(model), mode="three terms")
    with pytest.raises(ValueError, match="needs style_fidelity below 1 in Multi-Reference Self-Attention; it is 1"):
        picture(terms)
    for inputs, says in (
        ({"share": 1.5}, "share is 1.5; enter a number from 0.0 to 1.0"),
        ({"share": float("nan")}, "share is nan"),
        ({"reference_scale": float("nan")}, "reference_scale is nan"),
        ({"mode": "all"}, 'mode is "all"'),
    ):
        with pytest.raises(ValueError, match=says):
            guided(model, **inputs)
    with pytest.raises(ValueError, match="omega is nan"):
        dreamtuner(model, omega=float("nan"))
    with pytest.raises(ValueError, match="attention is 2.0; enter a number from 0"):
        reference_only(model, attention=2.0)
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    reference_only(model, attention=0.0, adain=0.0)
    assert any("both 0" in one for one in said)


def test_a_mask_is_bilinear_in_dreamtuner(model):
    soft = half_mask().clone()
    patched = dreamtuner(model, references(1, masks=[soft]))
    (technique,) = techniques_of(patched)
    (row,) = technique.members[0].rows
    index, bias = row.kept((8, 8))
    expected = torch.nn.functional.interpolate(soft[None], size=(8, 8), mode="bilinear")[0, 0].flatten()
    kept = expected.nonzero()[:, 0]
    assert torch.equal(index, kept)
    assert torch.allclose(bias, torch.tensor(3.0).log() + expected[kept].log())


@pytest.mark.parametrize("what", NODES)
def test_references_read_the_text_of_their_own_side_beside_area_prompts(model, what, monkeypatch):
    """To match areas the host copies an entry to the other side under the same uuid."""
    own = {} if what == "Reference Only" else {"reference_prompt": "target"}
    positive = conditioning_set_values(prompt(model, 100), {"area": (8, 4, 0, 0), "strength": 1.0})

    def made():
        texts = positive + prompt(model, 150), prompt(model, 200)
        return sample(NODES[what](model, **own), *texts, latent=(1, 4, 8, 8), steps=2)

    found = made()
    monkeypatch.setattr(entry_reader.EntryReader, "_kept_key", lambda self, what, text: entry_reader._digest(text()))
    assert torch.equal(found, made())


@pytest.mark.parametrize("what", NODES)
def test_inverted_noise_is_refused_over_a_wire(model, what):
    with pytest.raises(ValueError, match="reference_noise"):
        NODES[what](model, reference_noise="inverted")


@pytest.mark.parametrize("adain", [0.0, 1.0])
def test_a_mask_that_keeps_no_token_is_said(model, adain, caplog):
    mask = torch.zeros(1, 64, 64)
    mask[:, 3:6, 3:6] = 1
    reference_only(model, references(1, masks=[mask]), adain=adain)
    assert "its mask keeps no token on the" in caplog.text
