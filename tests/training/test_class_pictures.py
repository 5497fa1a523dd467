"""Class Pictures: drawn once by the host's sampler, kept as latents."""

import comfy.model_management as mm
import comfy.sample
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from safetensors import safe_open
from support.models import conditioning, execute, tiny_model
from support.packed import packed_twins, scaled_fp8, sealed

from pack.nodes.training import class_pictures as module
from pack.nodes.training.training_pictures_node import ClassPicturesNode


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def text(seed, width=32):
    return conditioning(torch.randn(1, 77, width, generator=torch.Generator().manual_seed(seed)))


def drawn(model, **inputs):
    given = {"positive": text(0), "negative": text(1), "prompt": "a photo of a cat", "folder": "class_cat"}
    given |= {"count": 2, "width": 64, "height": 96, "steps": 2, "seed": 5, **inputs}
    return execute(ClassPicturesNode, model=model, **given)[0]


def test_they_are_the_samplers_own_and_are_drawn_once(output, model, monkeypatch):
    first = drawn(model)
    assert first.latents.shape == (2, 4, 12, 8) and (first.prompt, first.family) == ("a photo of a cat", "SD1.5")
    empty = torch.zeros(1, 4, 12, 8)
    for seed, latent in zip((5, 6), first.latents, strict=True):
        noise = comfy.sample.prepare_noise(empty, seed)
        own = comfy.sample.sample(
            model, noise, 2, 7.5, "dpmpp_2m", "karras", text(0), text(1), empty, seed=seed, disable_pbar=True
        )
        assert torch.equal(own[0], latent)
    files = sorted((output / "class_cat").iterdir())
    assert len(files) == 2
    with safe_open(files[0], "pt") as file:
        assert file.metadata() == {"prompt": "a photo of a cat", "family": "SD1.5"}
        assert file.get_tensor("latent").shape == (4, 12, 8)
    made, real = [], module._drawn
    monkeypatch.setattr(module, "_drawn", lambda *args: (made.append(args[-1]), real(*args))[1])
    assert torch.equal(drawn(model).latents, first.latents) and not made
    # one more is one more; a file that is broken is drawn again
    files[0].write_bytes(b"no file")
    more = drawn(model, count=3)
    assert torch.equal(more.latents[:2], first.latents) and len(made) == 2
    # another prompt, size or guidance are other pictures
    several = {"positive": text(0) + text(2)}, {"negative": conditioning(text(1)[0][0], area=(4, 8, 0, 0))}
    others = {"positive": text(2)}, {"width": 128}, {"cfg": 3.0}, {"negative": text(3)}, *several
    for number, other in enumerate(others):
        drawn(model, count=1, **other)
        assert len(made) == 3 + number


def keys(model):
    return module._key(model, (text(0), text(1)), (1, 4, 12, 8), module.ClassSettings())


def test_other_models_have_pictures_of_their_own(model):
    (velocity,) = ModelSamplingDiscrete().patch(model, "v_prediction", False)
    others = [velocity, tiny_model(dtype=torch.bfloat16)]
    for dtype in (torch.float32, torch.bfloat16):
        tuned = tiny_model(dtype=dtype)
        tuned.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_k.weight.data.mul_(1.5)
        others.append(tuned)
    assert keys(tiny_model()) == keys(model)
    assert len({keys(one) for one in (model, *others)}) == 1 + len(others)


@pytest.mark.parametrize("packed", [scaled_fp8, sealed])
def test_packed_weights_have_a_key(packed):
    found, again = (keys(packed_twins(tiny_model, packed)[0]) for _ in range(2))
    assert found == again != keys(tiny_model())


def test_a_patched_model_is_the_same_one_when_it_is_loaded(model):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    standing = model.model.get_parameter(key)
    patched = model.clone()
    patched.add_patches({key: ("diff", (torch.ones_like(standing),))})
    before = keys(patched)
    mm.load_models_gpu([patched], force_full_load=True)
    assert float((model.model.get_parameter(key) - patched.backup[key].weight).abs().max()) > 0.5
    assert keys(patched) == before != keys(model)
    mm.load_models_gpu([model], force_full_load=True)
    assert keys(patched) == before


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"positive": text(0, 48)}, "positive is 48 wide, the model reads 32"),
        ({"folder": "../x"}, "folder is"),
        ({"count": 0}, "count is 0"),
    ],
)
def test_what_cannot_be_drawn(output, model, inputs, says):
    with pytest.raises(ValueError, match=says):
        drawn(model, **inputs)


def test_pictures_that_are_no_numbers_are_not_kept(output, model, monkeypatch):
    monkeypatch.setattr(module.comfy.sample, "sample", lambda *args, **kwargs: torch.full((1, 4, 12, 8), float("nan")))
    with pytest.raises(ValueError, match="seed 5 has NaN"):
        drawn(model)
    assert not list((output / "class_cat").iterdir())
