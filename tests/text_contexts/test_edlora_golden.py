"""ED-LoRA through the public nodes against values recorded from the published code."""

import pytest
import torch
from support.clips import encoded, golden_clip, prompt_of, tiny_clip
from support.compare import relative
from support.edloras import TINY, loras, put, random_contents, tiny_contents  # noqa: F401 (fixture)
from support.golden_data import case
from support.models import conditioning, execute, recording, sample, tiny_adm, tiny_model
from support.resadapter_sets import equal, weights_of

from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.edlora_node import EDLoRAConvert, EDLoRALoader


def loaded(model, clip, name, **inputs):
    return execute(EDLoRALoader, model=model, clip=clip, edlora_file=name, **inputs)


def test_text(loras):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    clip, golden, params = golden_clip()
    model = tiny_model()
    before = weights_of(model), encoded(clip, "11 25")[0][0]
    prompt = prompt_of(golden["token_ids"], params)
    assert prompt == "11 <cat_1> <cat_2> 25 7 <cat_1> <cat_2> 33"
    for strength, suffix, negative in ((params["lora_alpha"], "", "with_lora"), (0.0, "_without_lora", "base")):
        patched, taught, words = loaded(model, clip, TINY.name, strength_clip=strength)
        assert words == "<cat_1> <cat_2>"
        ((tensor, values),) = encoded(taught, prompt)
        assert relative(values[LAYERS], golden[f"context_layers{suffix}"]) < 1e-6
        assert torch.equal(tensor, values[LAYERS][:1])
        ((tensor, values),) = encoded(taught, "")
        assert relative(tensor, golden[f"context_negative_{negative}"]) < 1e-6
        assert LAYERS not in values
    # what came in is as it was
    assert equal(before[0], weights_of(model)) and torch.equal(before[1], encoded(clip, "11 25")[0][0])
    assert not model.patches and not clip.patcher.patches
    with pytest.raises(ValueError, match="invalid literal"):
        clip.tokenize("<cat_1>")


def expected_weights(model, contents, scale):
    """W + scale * up . down at every module of the file, by the diffusers names."""
    from comfy.utils import unet_to_diffusers

    names = unet_to_diffusers(model.model.model_config.unet_config)
    weights = {key: tensor.clone() for key, tensor in model.model.diffusion_model.state_dict().items()}
    for key, down in contents["unet"].items():
        if ".lora_down." in key:
            up = contents["unet"][key.replace("_down", "_up")]
            own = weights[names[key.replace(".lora_down", "")]]
            own += scale * (up.flatten(1).float() @ down.flatten(1).float()).reshape(own.shape)
    return weights


def of_case(name, number):
    """The LoRA of one concept of a golden case, as an ED-LoRA's unet part."""
    golden, params = case(f"concept_conductor/{name}")
    prefix = f"lora{number}/"
    return golden, params, {k.removeprefix(prefix): t.float() for k, t in golden.items() if k.startswith(prefix)}


@pytest.mark.parametrize("source", ["file", "sd15_step_boxes_plainlora"])
@pytest.mark.parametrize("way", ["loader", "converted"])
def test_weights(source, way, loras):  # noqa: F811
    """All modules of the file reach the model; ff and 1 x 1 convolutions too where it has them."""
    model, clip = tiny_model(), golden_clip()[0]
    contents, scale = tiny_contents(), 0.7
    if source != "file":
        _, params, contents["unet"] = of_case(source, 1)
        scale = params["lora_alpha"]
        assert any("ff.net" in key for key in contents["unet"]) and any("proj_in" in key for key in contents["unet"])
    put(loras / "a.pth", contents)
    wanted = expected_weights(model, contents, scale)
    if way == "loader":
        patched, *_ = loaded(model, clip, "a.pth", strength_model=scale)
    else:
        (path,) = execute(EDLoRAConvert, edlora_file="a.pth", file_name="b")
        patched = stock_loader(model, clip, "b.safetensors", scale)[0]
        assert path == str(loras / "b.safetensors")
    assert len(patched.patches) == len(contents["unet"]) // 2
    found = weights_of(patched)
    assert max(float((found[key] - wanted[key]).abs().max()) for key in wanted) < 1e-7
    assert not equal(found, weights_of(model))


def stock_loader(model, clip, name, scale):
    """The host's own Load LoRA node, which must know every key of the file."""
    import nodes

    return nodes.LoraLoader().load_lora(model, clip, name, scale, scale)


def test_the_converted_pair_is_the_file(loras):  # noqa: F811
    """Load LoRA and the words beside it give what the ED-LoRA gives, text encoder included."""
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    clip, golden, params = golden_clip()
    execute(EDLoRAConvert, edlora_file=TINY.name, file_name="cat")
    model, stocked = stock_loader(tiny_model(), clip, "cat.safetensors", 0.7)
    _, taught, words = loaded(model, stocked, "cat_words.safetensors")
    assert words == "<cat_1> <cat_2>"
    ((_, values),) = encoded(taught, prompt_of(golden["token_ids"], params))
    assert relative(values[LAYERS], golden["context_layers"]) < 1e-6


LIMITS = {"sd15_step_2concepts": 1e-5, "sdxl_step_2concepts": 4e-5}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("number", [1, 2])
def test_noise_prediction(name, number, loras):  # noqa: F811
    """A concept alone in an ordinary sampler: its LoRA, its contexts at each layer, a plain negative."""
    golden, params, unet = of_case(name, number)
    kind = params["model"].removeprefix("tiny_")
    clip = golden_clip()[0] if kind == "sd15" else tiny_clip("sdxl")
    contents = random_contents(tiny_model(kind), clip) | {"unet": unet}
    put(loras / "a.pth", contents)
    model, *_ = loaded(tiny_model(kind), clip, "a.pth", strength_model=params["lora_alpha"])
    sigma = float(model.get_model_object("model_sampling").sigma(torch.tensor(params["timestep"])))
    x = golden["latents_guided"] * (1 + sigma**2) ** 0.5 / sigma

    def text(which):
        contexts = golden[f"ctx/{which}"]
        values = {LAYERS: contexts} if len(contexts) > 1 else {}
        if kind == "sdxl":
            values["pooled_output"] = golden[f"pooled/{which}"][:1]
            values["time_ids"] = torch.tensor(params["time_ids"]).reshape(1, -1).float()
        # the plain context is what nobody may read where layers have their own
        return conditioning(torch.zeros_like(contexts[:1]) if len(contexts) > 1 else contexts, **values)

    model, recorder = recording(model)
    sigmas = torch.tensor([sigma, 0.0])
    sample(model, text(f"custom{number}"), text(f"custom{number}_neg"), latent=tuple(x.shape), noise=x, sigmas=sigmas)
    (call,) = recorder.calls
    cond, uncond = golden[f"eps/custom{number}"].chunk(2)
    assert (call.cond - cond).abs().max() < LIMITS[name]
    assert (call.uncond - uncond).abs().max() < LIMITS[name]


def test_tiny_adm_has_the_golden_shape():
    golden, params = case("concept_conductor/sdxl_step_2concepts")
    ids = torch.tensor(params["time_ids"]).reshape(1, -1).float()
    assert tiny_adm(pooled_output=golden["pooled/base"][:1], time_ids=ids).shape == (1, 88)
