"""What MRSA's references may be beyond its paper: read by another UNet, inverted, with the prompt as their own text."""

import comfy.hooks
import pytest
import torch
from support.compare import differ
from support.concepts import random_lora, with_lora
from support.golden_data import case
from support.models import sample, tiny_model
from support.reference_family import guided
from support.references import picture, prompt, references, with_references

from pack.nodes.host import messages
from pack.nodes.inversion import inversion_cache, kept_inversions
from pack.nodes.reference_attention import entry_reader
from pack.nodes.reference_attention.reference_branch import strongest


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


def test_the_strongest_is_the_recorded_one():
    golden, params = case("mrsa/modes")
    heads = params["heads"]
    x, refs = golden["x_target"][:1], golden["x_ref"]

    def attention(own, others):
        q, k, v = own @ golden["to_q"].T, *(torch.cat([own, *others], 1) @ golden[name].T for name in ("to_k", "to_v"))
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    project = lambda made: made @ golden["to_out_weight"].T + golden["to_out_bias"]  # noqa: E731
    plain = attention(x, [])
    made = strongest([attention(x, [ref[None]]) for ref in refs], plain, project)
    assert (project(made) - golden["bootpig_argmax"]).abs().max() < 1e-5


def test_the_models_own_unet_as_the_second_is_plain(model, monkeypatch):
    assert torch.equal(picture(with_references(model, reference_model=model)), picture(with_references(model)))
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    other = model.clone()
    other.add_patches({"diffusion_model.out.2.weight": (torch.ones(4, 32, 3, 3),)})
    with_references(model, reference_model=other)
    assert any("own checkpoint with other patches" in one for one in said)


def test_a_second_unet_of_another_shape_is_refused(model):
    with pytest.raises(ValueError, match="reference_model is SDXL, the model SD1.5; connect a UNet of the same shape"):
        with_references(model, reference_model=tiny_model("sdxl"))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_second_unet_reads_several_references_in_any_batch(kind):
    model, other = tiny_model(kind), tiny_model(kind, seed=3)
    patched = with_references(model, references(2), reference_model=other, style_fidelity=0.0, blocks="all")
    ours = picture(patched, latent=(2, 4, 9, 8), steps=2)
    assert differ(ours, picture(model, latent=(2, 4, 9, 8), steps=2)) > 1e-2
    # its weight says nothing there, and 0 is not off
    weightless = with_references(
        model, references(2), reference_model=other, style_fidelity=0.0, blocks="all", weight=0.0
    )
    assert torch.equal(picture(weightless, latent=(2, 4, 9, 8), steps=2), ours)


def test_a_second_unet_is_loaded_with_the_model_and_stays_as_it_was(model):
    other = tiny_model("sd15", seed=3)
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    patched = with_references(model, reference_model=other)
    assert other in patched.get_additional_models()
    picture(patched)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.model.state_dict().items())


def test_with_the_prompt_as_its_text_a_reference_reads_each_rows_own(model, monkeypatch):
    read, real = [], entry_reader.caught
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (read.extend(args[2]), real(*args))[1])
    picture(with_references(model, references(1), reference_prompt="target", style_fidelity=0.0), steps=1)
    wanted = [prompt(model, seed)[0][0] for seed in (200, 100)]
    assert len(read) == 2 and all(any(torch.equal(text.context, one) for text in read) for one in wanted)


def test_an_inverted_reference_is_at_each_step_on_its_own_path(model, monkeypatch, tmp_path):
    monkeypatch.setattr(inversion_cache, "folder", lambda kind: tmp_path / kind)
    made, runs = [], []
    real, invert = entry_reader.caught, kept_inversions.inverted
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (made.append(args[1].clone()), real(*args))[1])

    def inverted(base, latent, text, levels):
        runs.append((latent, text, invert(base, latent, text, levels)))
        return runs[-1][-1]

    monkeypatch.setattr(kept_inversions, "inverted", inverted)
    patched = with_references(model, references(1), reference_noise="inverted", cache_mb=0)
    first = picture(patched, steps=4)
    ((latent, text, path),) = runs
    assert torch.equal(text[0], prompt(model, sum(b"picture 0"))[0][0])
    # noise falls while sampling goes, and rises along the path
    assert len(made) == 4 and all(torch.equal(x, y[None]) for x, y in zip(made, path.flip(0), strict=True))
    # nothing is kept: made again
    assert torch.equal(picture(patched, steps=4), first) and len(runs) == 2 and not list(tmp_path.rglob("*"))
    assert differ(first, picture(with_references(model, references(1)), steps=4)) > 1e-3


def test_an_inverted_reference_is_kept_on_disk(model, monkeypatch, tmp_path):
    monkeypatch.setattr(inversion_cache, "folder", lambda kind: tmp_path / kind)
    runs, invert = [], kept_inversions.inverted
    monkeypatch.setattr(kept_inversions, "inverted", lambda *args: (runs.append(args), invert(*args))[1])
    # enough for the path, and not for the keys and values
    patched = with_references(model, references(1), reference_noise="inverted", cache_mb=0.01)
    first = picture(patched, steps=4)
    assert torch.equal(picture(patched, steps=4), first) and len(runs) == 1
    (kept,) = tmp_path.rglob("*.safetensors")
    assert kept.parent == tmp_path / inversion_cache.REFERENCE_FILES and kept.stat().st_size < 0.01 * 2**20


def test_an_inverted_reference_is_read_at_the_shifted_level(model, monkeypatch, tmp_path):
    monkeypatch.setattr(inversion_cache, "folder", lambda kind: tmp_path / kind)
    paths, read, invert, real = [], [], kept_inversions.inverted, entry_reader.caught
    monkeypatch.setattr(kept_inversions, "inverted", lambda *args: (paths.append(invert(*args)), paths[-1])[1])
    monkeypatch.setattr(entry_reader, "caught", lambda *args: (read.append(args[1].clone()), real(*args))[1])
    patched = with_references(model, references(1), reference_noise="inverted", cache_mb=0)
    # of ten steps 100 timesteps are one; a shift of 1 is nearer to the step itself
    for time_shift, nearest in ((0, range(10)), (1, range(10)), (100, [0, *range(9)])):
        read.clear()
        picture(guided(patched, share=1.0, time_shift=time_shift), steps=10)
        assert all(torch.equal(x[0], paths[0][level]) for x, level in zip(read[::-1], nearest, strict=True))


def test_an_inverted_reference_is_on_the_path_of_the_weights_that_read_it(model, monkeypatch, tmp_path):
    """A LoRA hangs on the positive prompt alone: its rows read what a MODEL with the LoRA would, the others do not."""
    monkeypatch.setattr(inversion_cache, "folder", lambda kind: tmp_path / kind)
    read, real = [], entry_reader.caught

    def caught(call, x, *args):
        read.append((call.base.current_patcher.current_hooks is not None, x.clone()))
        return real(call, x, *args)

    monkeypatch.setattr(entry_reader, "caught", caught)

    def read_of(model, positive):
        read.clear()
        ours = with_references(model, references(1), reference_noise="inverted", style_fidelity=0.5, cache_mb=0)
        sample(ours, positive, prompt(model, 200), steps=2)
        return list(read)

    positive, state = prompt(model, 100), random_lora(model, 3, scale=0.6)
    hook = comfy.hooks.create_hook_lora(state, 1.0, 0.0)
    found = read_of(model, comfy.hooks.set_hooks_for_conditioning(positive, hook))
    for hooked, alone in ((False, model), (True, with_lora(model, state, 1.0))):
        mine, expected = [x for one, x in found if one == hooked], [x for _, x in read_of(alone, positive)[::2]]
        assert len(mine) == len(expected) == 2 and max(map(differ, mine, expected)) < 1e-4
    assert differ(found[0][1], found[1][1]) > 1e-3


def test_an_inverted_reference_of_two_stages_is_on_the_path_of_the_whole_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr(inversion_cache, "folder", lambda kind: tmp_path / kind)
    levels, invert = [], kept_inversions.inverted
    monkeypatch.setattr(kept_inversions, "inverted", lambda *args: (levels.append(args[3]), invert(*args))[1])
    patched = with_references(model, references(1), reference_noise="inverted", cache_mb=0)
    picture(patched, steps=6)
    picture(patched, steps=6, last_step=3, force_full_denoise=False)
    whole, first = levels
    assert first == pytest.approx(whole, rel=1e-2)


def test_a_second_unet_of_other_input_channels_is_refused(model):
    other = tiny_model("sd15", seed=3)
    convolution = other.model.diffusion_model.input_blocks[0][0]
    convolution.weight = torch.nn.Parameter(torch.zeros(convolution.weight.shape[0], 9, 3, 3), requires_grad=False)
    with pytest.raises(ValueError, match="reference_model takes 9 channels, as those for inpainting do, the model 4;"):
        with_references(model, reference_model=other)
