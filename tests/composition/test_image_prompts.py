"""MIP-Adapter beside patches of other packs and beside MRSA, before or after: what the UNet must give, row by row."""

from contextlib import ExitStack, contextmanager

import pytest
import torch
from composition import foreign
from composition.foreign import by_setter, squashed
from composition.image_scene import Pictures, PicturesExpectation, coupled_with_list, peer_adapter
from composition.scene import ONE_STEP, SIGMAS, Expectation, Scene, same, unlike
from image_prompts.test_mip_adapter_golden import one_call
from support.compare import relative
from support.golden_data import case
from support.image_prompts import patched as golden_patched
from support.models import tiny_model
from support.thorough import few_rows_of


def split_values(n, context, value, options):
    """As a negative-prompt pack does: keys from one version of the text, values from another."""
    return n, context, value * torch.where(torch.arange(value.shape[1]) % 3 == 0, -1.0, 1.0)[:, None].to(value)


def longer(n, context, value, options):
    more = context[:, :3] * 0.5
    return n, torch.cat([context, more], 1), torch.cat([value, more], 1)


SQUARE = {"size": (16, 16)}
PATCHES = {
    "PAG": (foreign.PAG, SQUARE),
    "SAG": (foreign.SAG, SQUARE),
    "FreeU": (foreign.FREEU, {}),
    "Deep Shrink": (foreign.DOWNSCALE, SQUARE),
    "HyperTile": (foreign.HYPERTILE, SQUARE),
    "token merging": (foreign.TOME, SQUARE),
    "cross-attention multiply": (foreign.CROSS_MULTIPLY, {}),
    "LoRA": (foreign.lora, {}),
    "UNet run twice": (by_setter("add_wrapper_with_key", "diffusion_model", "mirror", foreign.mirrored), {}),
    "callable at a block": (by_setter("set_model_attn2_replace", squashed, "output", 5), {}),
    "callable at an attention": (by_setter("set_model_attn2_replace", squashed, "output", 5, 0), {}),
    "other values than keys": (by_setter("set_model_attn2_patch", split_values), {}),
    "longer context": (by_setter("set_model_attn2_patch", longer), {}),
    "edited output": (by_setter("set_model_attn2_output_patch", lambda n, options: 0.8 * n.roll(1, 1)), {}),
    "public IP-Adapter": (peer_adapter, {}),
    "two public IP-Adapters": (lambda scene: foreign.both(peer_adapter(scene), peer_adapter(scene)), {}),
    "attention couple": (lambda scene: coupled_with_list(scene.texts["elsewhere"][0]), {}),
}
NEED_SCENE = ("public IP-Adapter", "two public IP-Adapters", "attention couple")
# these act in calls of their own or on what comes out, so that our first call is as without them
GUIDANCE = ("PAG", "SAG", "UNet run twice")
ON_SDXL = ["PAG", "LoRA", "callable at an attention", "longer context", "public IP-Adapter", "attention couple"]


CASES = [*(("sd15", 1, name) for name in PATCHES), *(("sdxl", 2, name) for name in ON_SDXL)]
QUICK = [
    *(("sd15", 1, name) for name in ("PAG", "token merging", "callable at a block", "public IP-Adapter")),
    *(("sdxl", 2, name) for name in ("longer context", "attention couple")),
]


@pytest.mark.parametrize(("kind", "batch", "name"), few_rows_of(CASES, *QUICK))
def test_patch(kind, batch, name):
    patch, how = PATCHES[name]
    scene = Scene(kind, batch, **how)
    patch = patch(scene) if name in NEED_SCENE else patch
    pictures = Pictures(scene)
    sigmas = SIGMAS if kind == "sd15" else ONE_STEP
    theirs, ours, first, last = (
        scene.run(model, sigmas=sigmas)
        for model in (
            patch(scene.model),
            pictures.ours(),
            patch(pictures.ours()),
            pictures.ours(patch(scene.model)),
        )
    )
    expected = scene.run(patch(scene.model), expect=opened(PicturesExpectation(pictures)), sigmas=sigmas)
    assert torch.equal(first.latent, last.latent)
    for call, right in zip(last.calls, expected.calls, strict=True):
        assert nearly_same(call.cond, right.cond)
        assert nearly_same(call.uncond, right.uncond)
    assert unlike(last.latent, ours.latent)
    assert unlike(last.calls[0].cond, theirs.calls[0].cond)
    assert name in GUIDANCE or unlike(last.calls[0].cond, ours.calls[0].cond)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_mrsa(kind):
    """Both techniques of this pack at once, in either order: each as if it stood alone."""
    scene = Scene(kind)
    pictures = Pictures(scene)
    first, last = scene.run(scene.ours(pictures.ours())), scene.run(pictures.ours(scene.ours()))
    mrsa = Expectation(scene)
    expected = scene.run(expect=opened(mrsa, PicturesExpectation(pictures, beside=mrsa)))
    assert torch.equal(first.latent, last.latent)
    for call, right in zip(last.calls, expected.calls, strict=True):
        assert nearly_same(call.cond, right.cond)
        assert nearly_same(call.uncond, right.uncond)


def test_rows_that_nobody_explains(caplog):
    """A couple node without a list: its rows are left as it made them, and it is said once per run."""
    scene = Scene()
    couple = foreign.coupled(scene.texts["elsewhere"][0])
    pictures = Pictures(scene)
    both = scene.run(pictures.ours(couple(scene.model)))
    assert torch.equal(both.latent, scene.run(couple(scene.model)).latent)
    assert caplog.text.count("changed the number of rows") == 1


def test_public_ip_adapter_of_the_recorded_case(monkeypatch):
    """MIP-Adapter and a plain IP-Adapter of the same matrices, recorded; the gate sees the text alone."""
    golden, params = case("mip_adapter/compose_ip_adapter")
    model = tiny_model("sdxl")
    sides = {"cond": golden["second_tokens_cond"], "uncond": golden["second_tokens_uncond"]}
    for side, tokens in sides.items():
        peer = peer_adapter(Scene("sdxl"), tokens[None])
        for ours_last in (True, False):
            patched = golden_patched(peer(model) if ours_last else model, golden, params, monkeypatch)
            call = one_call(patched if ours_last else peer(patched), golden, params)
            assert (getattr(call, side) - golden[f"eps_{side}"]).abs().max() < 5e-5
    alone = one_call(golden_patched(model, golden, params, monkeypatch), golden, params)
    assert (alone.cond - golden["eps_cond_without_second"]).abs().max() < 5e-5


@contextmanager
def opened(*expectations):
    with ExitStack() as stack:
        for one in expectations:
            stack.enter_context(one)
        yield


def nearly_same(a, b):
    """Equal but for rounding: the maps amplify it where objects are far apart, on some processors to 3e-4."""
    return same(a, b) or relative(a, b) < 5e-4
