"""MRSA beside what conditionings carry: a ControlNet, hooks, areas and masks; and all patches at once."""

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.model_management
import comfy.ops
import node_helpers
import pytest
import torch
from comfy_extras import nodes_perpneg
from composition import foreign
from composition.foreign import by_setter, override, squashed
from composition.scene import BLOCKS, ONE_STEP, Expectation, Scene, random, same, unlike
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.image_prompts import with_pictures
from support.models import random_weights, tiny_model
from support.references import picture, prompt, with_references
from support.thorough import few_of, few_rows_of

from nodes import ConditioningSetArea, ConditioningSetMask, ControlNetApplyAdvanced


def check(scene, keys, positive=None, negative=None, **settings):
    """What the patched MODEL gives with these conditionings: as expected, and whose rows and keys changed.

    Returns runs: ours (plain conditionings), theirs (no MRSA), both; each with the keys its reference passes caught.
    """
    runs = []
    for model, conds in (
        (scene.ours(**settings), ()),
        (scene.model, (positive, negative)),
        (scene.ours(**settings), (positive, negative)),
    ):
        keys.clear()
        runs.append(scene.run(model, *conds))
        runs[-1].keys = [tensor for entry in keys for k, v, _ in entry.values() for tensor in (k, v)]
    expected = scene.run(None, positive, negative, expect=Expectation(scene, **settings))
    for call, right in zip(runs[2].calls, expected.calls, strict=True):
        assert same(call.cond, right.cond)
        assert same(call.uncond, right.uncond)
    assert same(runs[2].latent, expected.latent)
    return runs


def first(run, role):
    """eps of the first call that holds rows of this role."""
    return next(eps for eps in (getattr(call, role) for call in run.calls) if len(eps))


def controlnet(scene):
    """A ControlNet for the tiny UNet, of the host's class, that bends it visibly."""
    config = dict(scene.model.model.model_config.unet_config)
    config.pop("out_channels", None)
    config.pop("transformer_depth_output", None)
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, **config)
    net.load_state_dict(random_weights(net.state_dict(), seed=77))
    return comfy.controlnet.ControlNet(net.eval(), load_device=comfy.model_management.get_torch_device())


@pytest.mark.parametrize(("kind", "batch"), few_rows_of([("sd15", 1), ("sdxl", 1), ("sdxl", 2)], ("sd15", 1)))
def test_controlnet_bends_the_image_and_not_the_references(kind, batch, keys):
    # at batch 1 the references' rows have the shape of the image's: the residuals would fit them
    scene = Scene(kind, batch, size=(8, 8), sizes=((8, 8), (8, 8)))
    texts = scene.text("positive"), scene.text("negative")
    hint = random(1, 64, 64, 3, seed=78).sigmoid()
    controlled = ControlNetApplyAdvanced().apply_controlnet(*texts, controlnet(scene), hint, 0.5, 0.0, 1.0)
    ours, theirs, both = check(scene, keys, *controlled)
    assert same(first(both, "uncond"), first(theirs, "uncond"))
    assert unlike(first(both, "uncond"), first(ours, "uncond"))
    assert unlike(first(both, "cond"), first(theirs, "cond"))
    assert unlike(first(both, "cond"), first(ours, "cond"))
    assert ours.keys and all(map(torch.equal, both.keys, ours.keys))


def hooked(conditioning, *hooks):
    group = comfy.hooks.HookGroup()
    for hook in hooks:
        group.add(hook)
    return node_helpers.conditioning_set_values(conditioning, {"hooks": group})


def lora_hook(scene, strength=0.2):
    return comfy.hooks.create_hook_lora(foreign.lora_file(scene.model), strength, 0.0).hooks[0]


@pytest.mark.parametrize("fidelity", few_of([1.0, 0.3], 1.0))
@pytest.mark.parametrize("side", ["positive", "negative"])
def test_hook_lora_of_one_side(side, fidelity, keys):
    scene = Scene()
    conds = {name: scene.text(name) for name in ("positive", "negative")}
    conds[side] = hooked(conds[side], lora_hook(scene))
    ours, theirs, both = check(scene, keys, fidelity=fidelity, **conds)
    other = {"positive": "uncond", "negative": "cond"}[side]
    here = {"positive": "cond", "negative": "uncond"}[side]
    # the references of a row run with the weights of the row
    assert same(first(both, other), first(ours, other))
    assert unlike(first(both, here), first(ours, here))
    reads = side == "positive" or fidelity < 1
    assert (unlike if reads else same)(first(both, here), first(theirs, here))
    assert not all(map(torch.equal, both.keys, ours.keys)) if reads else all(map(torch.equal, both.keys, ours.keys))
    # the weights are back
    assert torch.equal(scene.run(scene.ours(fidelity=fidelity)).latent, ours.latent)


def test_each_prompt_reads_references_under_its_own_weights():
    """Two prompts with two hook LoRAs: the weights change between the calls of one step."""
    scene = Scene()
    texts = (("positive", 0.1), ("elsewhere", 0.3))
    positive = [entry for name, s in texts for entry in hooked(scene.text(name), lora_hook(scene, s))]
    expected = scene.run(None, positive, expect=Expectation(scene))
    assert same(scene.run(scene.ours(), positive).latent, expected.latent)
    assert same(scene.run(scene.ours(cache_mb=64), positive).latent, expected.latent)


@pytest.mark.parametrize("lately", few_of([False, True], False))
def test_hook_puts_a_callable_beside_one_side(lately, keys):
    scene = Scene()
    slot = {"patches_replace": {"attn1": {("output", 5): squashed}}}
    if lately:
        ((wrapper,),) = (
            w["a later pack"] for w in foreign.late(squashed, ("output", 5))(scene.model).wrappers.values()
        )
        slot = {"wrappers": {"diffusion_model": {"a later pack": [wrapper]}}}
    hook = comfy.hooks.TransformerOptionsHook(slot, hook_scope=comfy.hooks.EnumHookScope.HookedOnly)
    ours, theirs, both = check(scene, keys, positive=hooked(scene.text("positive"), hook))
    assert same(first(both, "uncond"), first(ours, "uncond"))
    assert unlike(first(both, "cond"), first(ours, "cond"))
    assert unlike(first(both, "cond"), first(theirs, "cond"))
    assert all(map(torch.equal, both.keys, ours.keys))


# left and right half of 16 x 16; the upper right quarter of the first picture's region
LEFT, RIGHT = (0, 8), (8, 16)


def halves(scene):
    """Two prompts, each on its half of the picture."""
    return [
        entry
        for name, (start, stop) in (("positive", LEFT), ("elsewhere", RIGHT))
        for entry in ConditioningSetArea().append(scene.text(name), 64, 128, 8 * start, 0, 1.0)[0]
    ]


def region():
    mask = torch.zeros(16, 16)
    mask[:8, 4:] = 1
    mask[8:, 12:] = 0.25
    return mask


def at_query(scene):
    """ln of the first picture's region at the queries of a half, which is told by its text."""

    def at(context, picture, tokens):
        if picture:
            return torch.zeros(tokens)
        start, stop = LEFT if torch.equal(context, scene.texts["positive"][0][0]) else RIGHT
        shown = region()[:, start:stop]
        step = round((shown.numel() / tokens) ** 0.5)
        return shown[::step, ::step].log().flatten()

    return at


def test_areas_with_regions(keys):
    scene = Scene(size=(16, 16))
    runs = {}
    for name, settings in (("region", {"regions": (region(), None)}), ("none", {})):
        runs[name] = scene.run(scene.ours(**settings), halves(scene))
    expected = scene.run(None, halves(scene), expect=Expectation(scene, at_query=at_query(scene)))
    theirs = scene.run(None, halves(scene))
    assert {call.x.shape[-1] for call in theirs.calls} == {8, 16}
    for call, right, bare in zip(runs["region"].calls[:2], expected.calls[:2], theirs.calls[:2], strict=True):
        assert same(call.cond, right.cond)
        assert same(call.uncond, bare.uncond)
    assert same(runs["region"].latent, expected.latent)
    assert unlike(first(runs["region"], "cond"), first(theirs, "cond"))
    assert unlike(first(runs["region"], "cond"), first(runs["none"], "cond"))
    assert same(runs["none"].latent, scene.run(None, halves(scene), expect=Expectation(scene)).latent)


def test_area_beyond_the_edge():
    """The host cuts an area at the picture's edge; regions stand where they stood."""
    scene = Scene(size=(16, 16))
    within, beyond = (
        ConditioningSetArea().append(scene.text("elsewhere"), width, 128, 64, 0, 1.0)[0] for width in (64, 128)
    )
    for model in (scene.model, scene.ours(regions=(region(), None))):
        assert torch.equal(scene.run(model, beyond).latent, scene.run(model, within).latent)


def test_masked_prompts_all_read(keys):
    scene = Scene(size=(16, 16))
    positive = [
        entry
        for name, mask in (("positive", region()), ("elsewhere", 1 - region()))
        for entry in ConditioningSetMask().append(scene.text(name), mask[None], "default", 1.0)[0]
    ]
    ours, theirs, both = check(scene, keys, positive=positive)
    assert len(both.calls[0].cond) == 2
    assert all(unlike(*rows) for rows in zip(both.calls[0].cond, theirs.calls[0].cond))
    assert same(both.calls[0].uncond, theirs.calls[0].uncond)


@pytest.mark.parametrize("guidance", [foreign.PAG, foreign.SAG], ids=["PAG", "SAG"])
def test_guidance_over_areas(guidance):
    """The host gives the negative of an area the positive's uuid; it stays a negative in SAG's own call."""
    scene = Scene(size=(16, 16))
    runs = [
        scene.run(model, halves(scene), sigmas=ONE_STEP) for model in (guidance(scene.model), guidance(scene.ours()))
    ]
    expected = scene.run(guidance(scene.model), halves(scene), expect=Expectation(scene), sigmas=ONE_STEP)
    for theirs, both, right in zip(runs[0].calls, runs[1].calls, expected.calls, strict=True):
        assert same(both.uncond, theirs.uncond)
        assert same(both.cond, right.cond)
        assert not len(both.cond) or unlike(both.cond, theirs.cond)


def test_longer_prompt_runs_in_calls_of_its_own(keys):
    scene = Scene()
    scene.texts["positive"] = random(1, 10, 32, seed=40), None
    ours, theirs, both = check(scene, keys, positive=scene.text("positive"))
    assert [len(call.cond) + len(call.uncond) for call in both.calls] == [1] * 4
    assert same(first(both, "uncond"), first(theirs, "uncond"))
    assert unlike(first(both, "cond"), first(theirs, "cond"))


@pytest.mark.slow
def test_everything_at_once():
    """A ControlNet, a hook, and nine patches in a row, with MRSA before, among and behind them."""
    scene = Scene(size=(16, 16))
    patches = [
        foreign.lora,
        foreign.FREEU,
        foreign.HYPERTILE,
        foreign.PAG,
        by_setter("set_model_attn1_replace", squashed, "output", 5),
        foreign.SAG,
        override(lambda function, *args, **more: 1.1 * function(*args, **more)),
        foreign.late(squashed, ("output", 9)),
        foreign.CROSS_MULTIPLY,
    ]
    texts = scene.text("positive"), hooked(scene.text("negative"), lora_hook(scene, 0.1))
    hint = random(1, 128, 128, 3, seed=78).sigmoid()
    conds = ControlNetApplyAdvanced().apply_controlnet(*texts, controlnet(scene), hint, 0.3, 0.0, 1.0)
    blocks = (6, *BLOCKS["sd15"])

    def patched(position):
        model = scene.model
        for i, patch in enumerate(patches):
            model = patch(scene.ours(model, blocks=blocks) if i == position else model)
        return scene.ours(model, blocks=blocks) if position == len(patches) else model

    runs = [scene.run(patched(position), *conds, sigmas=ONE_STEP) for position in (0, 4, len(patches))]
    assert all(torch.equal(run.latent, runs[0].latent) for run in runs)
    expected = scene.run(patched(None), *conds, expect=Expectation(scene, blocks, gain=1.1), sigmas=ONE_STEP)
    for call, right in zip(runs[0].calls, expected.calls, strict=True):
        assert same(call.cond, right.cond)
        assert same(call.uncond, right.uncond)
    theirs = scene.run(patched(None), *conds, sigmas=ONE_STEP)
    assert unlike(first(runs[0], "cond"), first(theirs, "cond"))
    assert same(first(runs[0], "uncond"), first(theirs, "uncond"))


OURS = {
    "MRSA": with_references,
    "MIP-Adapter": with_pictures,
    # a concept's own negative is another one than the empty prompt
    "Concept Conductor": lambda model: conducted(model, random_concepts(model, negative=[None, None])),
}


@pytest.mark.parametrize("name", few_of(OURS, "MIP-Adapter"))
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_empty_prompt_of_the_old_perp_neg_is_no_prompt(name, first):
    """With an empty prompt that is the negative, Perp-Neg changes nothing; so it must not beside us."""
    model = tiny_model()
    old = foreign.by_node(nodes_perpneg.PerpNeg, prompt(model, 200), 1.0)
    ours = OURS[name]
    assert differ(picture(old(model)), picture(model)) < 1e-4
    patched = old(ours(model)) if first == "ours" else ours(old(model))
    assert differ(picture(patched), picture(ours(model))) < 1e-4
