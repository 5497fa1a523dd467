"""MRSA beside one patch of another pack, which came before or after: what the UNet must give, row by row."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from composition import foreign
from composition.foreign import by_setter, squashed
from composition.scene import BLOCKS, ONE_STEP, SIGMAS, Expectation, Scene, same, unlike
from support.thorough import few_rows_of

MIDDLE = {"sd15": (6,), "sdxl": (10, 11, 12)}

SQUARE = {"size": (16, 16)}
# name: (patch, settings of the scene and of MRSA)
PATCHES = {
    "PAG": (foreign.PAG, SQUARE),
    "PAG at a planned block": (foreign.PAG, {"middle": True, **SQUARE}),
    "SAG": (foreign.SAG, SQUARE),
    "SAG at a planned block": (foreign.SAG, {"middle": True, **SQUARE}),
    "FreeU": (foreign.FREEU, {}),
    "FreeU V2": (foreign.FREEU_V2, {}),
    "Deep Shrink": (foreign.DOWNSCALE, SQUARE),
    "HyperTile": (foreign.HYPERTILE, SQUARE),
    "HyperTile around a callable": (
        foreign.both(foreign.HYPERTILE, by_setter("set_model_attn1_replace", squashed, "output", 5)),
        SQUARE,
    ),
    "self-attention multiply": (foreign.SELF_MULTIPLY, {"weights": True}),
    "cross-attention multiply": (foreign.CROSS_MULTIPLY, {"weights": True}),
    "LoRA": (foreign.lora, {"weights": True}),
    "override": (foreign.override(lambda f, q, k, v, heads, **more: 1.2 * f(q, k, v, heads, **more)), {"gain": 1.2}),
    "callable at a planned block": (by_setter("set_model_attn1_replace", squashed, "output", 5), {}),
    "callable at a planned attention": (by_setter("set_model_attn1_replace", squashed, "output", 5, 0), {}),
    "callable elsewhere": (by_setter("set_model_attn1_replace", squashed, "input", 4), {}),
    "callable put there late": (foreign.late(squashed, ("output", 5)), {}),
    "UNet run twice": (
        by_setter("add_wrapper_with_key", WrappersMP.DIFFUSION_MODEL, "mirror", foreign.mirrored),
        {},
    ),
    "longer context": (by_setter("set_model_attn1_patch", foreign.longer), {}),
    "edited output": (by_setter("set_model_attn1_output_patch", lambda n, options: 0.8 * n.roll(1, 1)), {}),
    "attention couple": (foreign.coupled, {}),
}
# these leave the eps of the main call as it is, and act in calls of their own or on what comes out
GUIDANCE = [name for name in PATCHES if name.startswith(("PAG", "SAG", "UNet"))]
# attentions of a block are several on SDXL, rows per text several in a batch, and both halves read at fidelity < 1
ON_SDXL = [
    "PAG at a planned block",
    "SAG at a planned block",
    "HyperTile around a callable",
    "override",
    "LoRA",
    "callable at a planned block",
    "callable at a planned attention",
    "attention couple",
]


CASES = [*(("sd15", 1, 1.0, name) for name in PATCHES), *(("sdxl", 2, 0.3, name) for name in ON_SDXL)]
QUICK = [
    *(("sd15", 1, 1.0, name) for name in ("PAG", "FreeU", "HyperTile", "LoRA", "callable at a planned block")),
    *(("sdxl", 2, 0.3, name) for name in ("override", "attention couple")),
]


@pytest.mark.parametrize(("kind", "batch", "fidelity", "name"), few_rows_of(CASES, *QUICK))
def test_patch(kind, batch, fidelity, name, keys):
    patch, how = PATCHES[name]
    how = dict(how)
    weights, gain = how.pop("weights", False), how.pop("gain", 1.0)
    blocks = (*(MIDDLE[kind] if how.pop("middle", False) else ()), *BLOCKS[kind])
    scene = Scene(kind, batch, **how)
    if patch is foreign.coupled:
        patch = patch(scene.texts["elsewhere"][0])
    settings = {"blocks": blocks, "fidelity": fidelity}
    sigmas = SIGMAS if kind == "sd15" else ONE_STEP
    runs = {}
    for who, model in (
        ("theirs", patch(scene.model)),
        ("ours", scene.ours(**settings)),
        ("ours first", patch(scene.ours(**settings))),
        ("ours last", scene.ours(patch(scene.model), **settings)),
    ):
        keys.clear()
        runs[who] = scene.run(model, sigmas=sigmas)
        runs[who].keys = list(keys)
    theirs, ours, both = runs["theirs"], runs["ours"], runs["ours last"]
    expected = scene.run(patch(scene.model), expect=Expectation(scene, gain=gain, **settings), sigmas=sigmas)

    assert torch.equal(runs["ours first"].latent, both.latent)
    # every row of every call, PAG's and SAG's own calls among them
    for call, right in zip(both.calls, expected.calls, strict=True):
        assert same(call.cond, right.cond)
        assert same(call.uncond, right.uncond)
    assert same(both.latent, expected.latent)

    first = both.calls[0]
    if fidelity == 1:
        assert same(first.uncond, theirs.calls[0].uncond)
    assert unlike(first.cond, theirs.calls[0].cond)
    assert name in GUIDANCE or unlike(first.cond, ours.calls[0].cond)
    assert unlike(both.latent, ours.latent)
    # the reference pass runs with the weights of all, and with nobody's patches
    equal = [
        torch.equal(k, other[block][0]) and torch.equal(v, other[block][1])
        for entry, other in zip(both.keys, ours.keys, strict=True)
        for block, (k, v, _) in entry.items()
    ]
    assert equal
    assert not any(equal) if weights else all(equal)


def test_a_wrapper_that_joins_at_run_time():
    """A pack whose OUTER_SAMPLE wrapper adds its UNet wrapper only then, behind all that nodes have added."""

    def join(executor, *args, **more):
        ((wrapper,),) = foreign.late(squashed, ("output", 5))(scene.model).wrappers["diffusion_model"].values()
        add_wrapper_with_key("diffusion_model", "zz", wrapper, executor.class_obj.model_options, is_model_options=True)
        return executor(*args, **more)

    scene = Scene()
    joining = by_setter("add_wrapper_with_key", "outer_sample", "a pack", join)
    first, last = scene.run(joining(scene.ours())), scene.run(scene.ours(joining(scene.model)))
    expected = scene.run(joining(scene.model), expect=Expectation(scene))
    assert torch.equal(first.latent, last.latent)
    assert same(first.latent, expected.latent)
