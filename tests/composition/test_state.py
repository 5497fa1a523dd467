"""What must not be left behind: changes to an incoming MODEL, the state of a run that broke, another's cached keys."""

import copy
import gc

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from composition import foreign
from composition.foreign import by_setter
from composition.scene import Scene, random, same, unlike
from support.thorough import few_of

from pack.nodes.host.run import Run
from pack.nodes.reference_attention import entry_reader, mrsa

THREE_STEPS = (5.0, 2.0, 1.0, 0.0)


def open_runs():
    """What runs keep while they last. A closed run may still stand as a token in the cache."""
    return [
        one
        for one in gc.get_objects()
        if isinstance(one, entry_reader.EntryReader) or isinstance(one, Run) and one.guider
    ]


def contents(value):
    """A nested structure by value where it is a dict or list, by identity where it is a leaf; order counts."""
    if isinstance(value, dict):
        return [(key, contents(inner)) for key, inner in value.items()]
    return [contents(inner) for inner in value] if isinstance(value, (list, tuple)) else id(value)


def snapshot(model):
    names = (
        "model_options",
        "wrappers",
        "callbacks",
        "patches",
        "object_patches",
        "attachments",
        "additional_models",
        "injections",
        "hook_patches",
    )
    return {name: contents(getattr(model, name)) for name in names} | {"uuid": model.patches_uuid}


def test_every_model_stays_as_it_came():
    scene = Scene()
    weights = {name: tensor.clone() for name, tensor in scene.model.model.state_dict().items()}
    models = [scene.model]
    for patch in (
        foreign.lora,
        foreign.FREEU,
        scene.ours,
        foreign.PAG,
        scene.ours,
        by_setter(
            "add_wrapper_with_key",
            WrappersMP.DIFFUSION_MODEL,
            "another",
            lambda executor, *args, **more: executor(*args, **more),
        ),
    ):
        before = [snapshot(model) for model in models]
        models.append(patch(models[-1]))
        assert [snapshot(model) for model in models[:-1]] == before
    # none of them is changed by running the others, first to last and back
    before = [snapshot(model) for model in models]
    there = [scene.run(model).latent for model in models]
    back = [scene.run(model).latent for model in reversed(models)][::-1]
    assert all(map(torch.equal, there, back))
    assert [snapshot(model) for model in models] == before
    assert all(unlike(one, other) for one, other in zip(there[:5], there[1:6]))
    scene.model.unpatch_model()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in scene.model.model.state_dict().items())


@pytest.mark.parametrize("noise", ["of the chain", "of the picture"])
@pytest.mark.parametrize("between", [None, foreign.FREEU], ids=["next to each other", "something between"])
def test_two_nodes_are_one_chain(between, noise, monkeypatch):
    if noise == "of the picture":
        draw = lambda seed, index, step, like: random(*like.shape, seed=10 * step + like.shape[-2])  # noqa: E731
        monkeypatch.setattr(mrsa, "reference_noise", draw)
    scene = Scene()
    between = between or (lambda model: model)
    one = scene.run(scene.ours(between(scene.model)))
    two = scene.run(scene.ours(between(scene.ours(pictures=(0,))), pictures=(1,)))
    assert unlike(two.calls[0].cond, scene.run(scene.ours(between(scene.model), pictures=(1,))).calls[0].cond)
    assert same(two.latent, one.latent)


def test_two_nodes_keep_their_own_settings():
    """Joined, each node still decides at its own blocks, with its own weight and fidelity."""
    scene = Scene()
    model = scene.ours(pictures=(0,), blocks=(8, 9), fidelity=0.0)
    model = scene.ours(model, pictures=(1,), blocks=(14, 15), weight=1.0)
    one, two = (scene.run(scene.ours(pictures=(0,), blocks=(8, 9), fidelity=0.0)), scene.run(model))
    # rows of the negative see what the first node alone shows them
    assert same(two.calls[0].uncond, one.calls[0].uncond)
    assert unlike(two.calls[0].uncond, scene.run().calls[0].uncond)
    assert unlike(two.calls[0].cond, one.calls[0].cond)


@pytest.fixture(scope="module")
def fresh():
    with torch.inference_mode():
        scene = Scene()
        return scene.run(foreign.PAG(scene.ours()), sigmas=THREE_STEPS).latent


@pytest.mark.parametrize("cache_mb", few_of([0, 64], 64))
def test_interrupt_at_each_step(cache_mb, fresh):
    scene = Scene()
    model = foreign.PAG(scene.ours(cache_mb=cache_mb))
    for stop in range(3):

        def interrupt(step, *args, stop=stop):
            if step == stop:
                assert open_runs()
                raise comfy.model_management.InterruptProcessingException

        with pytest.raises(comfy.model_management.InterruptProcessingException):
            scene.run(model, sigmas=THREE_STEPS, callback=interrupt)
        gc.collect()
        assert not open_runs()
    assert torch.equal(scene.run(model, sigmas=THREE_STEPS).latent, fresh)


@pytest.mark.parametrize("cache_mb", few_of([0, 64], 64))
def test_error_inside_the_unet(cache_mb, fresh):
    """A module of the UNet fails at its n-th call: in a reference pass, in the main call, in SAG's, at each step."""
    scene = Scene()
    model = foreign.PAG(scene.ours(cache_mb=cache_mb))
    attention, calls, fails = scene.attentions()[12], [], []

    def fail(module, args):
        calls.append(args[0].shape)
        if len(calls) == fails[-1]:
            raise RuntimeError("a hook of somebody")

    handle = attention.to_q.register_forward_pre_hook(fail)
    for at in (1, 2, 3, 4, 6):
        calls.clear()
        fails.append(at)
        with pytest.raises(RuntimeError, match="a hook of somebody"):
            scene.run(model, sigmas=THREE_STEPS)
        gc.collect()
        assert not open_runs()
    handle.remove()
    assert torch.equal(scene.run(model, sigmas=THREE_STEPS).latent, fresh)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_lora_is_as_good_as_other_weights(kind):
    scene = Scene(kind)
    state = foreign.lora_file(scene.model)

    def merge(unet):
        for key, weight in unet.state_dict().items():
            name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            if f"{name}.alpha" in state:
                weight += 0.2 * state[f"{name}.lora_up.weight"] @ state[f"{name}.lora_down.weight"]

    merged = Scene(kind, weights=merge)
    assert same(scene.run(foreign.lora(scene.ours())).latent, merged.run(merged.ours()).latent)
    assert unlike(merged.run(merged.ours()).latent, scene.run(scene.ours()).latent)


@pytest.mark.slow
def test_cached_keys_are_those_of_the_weights(keys):
    """No LoRA, a LoRA, another LoRA: each run gives what it gives without a cache."""
    scene = Scene()

    def other(model):
        return foreign.load_lora_for_models(model, None, foreign.lora_file(model, seed=1), 0.2, 0.0)[0]

    kept = scene.ours(cache_mb=64)
    for patch in (None, foreign.lora, other):
        patched, plain = (patch(model) if patch else model for model in (kept, scene.ours()))
        right = scene.run(plain).latent
        keys.clear()
        assert torch.equal(scene.run(patched).latent, right)
        assert len(keys) == 4
        # the same again: from the cache, beside any patch that leaves the weights alone
        keys.clear()
        assert torch.equal(scene.run(patched).latent, right)
        assert same(scene.run(foreign.FREEU(patched)).latent, scene.run(foreign.FREEU(plain)).latent)
        assert len(keys) == 4


def injected(model):
    """The MODEL with modules injected as Model-as-LoRA packs do: another forward while it is loaded, no patch."""
    module = model.model.diffusion_model.output_blocks[3][1].transformer_blocks[0].attn1.to_k
    forward = module.forward
    clone = model.clone()
    inject = lambda patcher: setattr(module, "forward", lambda x: forward(x).roll(1, -1))  # noqa: E731
    eject = lambda patcher: setattr(module, "forward", forward)  # noqa: E731
    clone.set_injections("somebody", [PatcherInjection(inject, eject)])
    return clone


def replaced(model):
    """The MODEL with a module of its UNet replaced while it is loaded."""
    clone = model.clone()
    path = "diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.to_k"
    module = copy.deepcopy(clone.get_model_object(path))
    module.weight.copy_(module.weight.roll(1, 0))
    clone.add_object_patch(path, module)
    return clone


@pytest.mark.parametrize("change", [injected, replaced])
def test_cached_keys_are_those_of_the_modules(change):
    """Between two runs another pack puts modules in: no patch, and so no new id of the patches, says so."""
    scene = Scene()
    kept, plain = scene.ours(cache_mb=64), scene.ours()
    without = scene.run(kept).latent
    right = scene.run(change(plain)).latent
    assert torch.equal(scene.run(change(kept)).latent, right)
    assert unlike(right, without)
    assert torch.equal(scene.run(kept).latent, without)
