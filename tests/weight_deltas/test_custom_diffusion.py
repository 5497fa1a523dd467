"""Custom Diffusion by property: every layout is one and the same change, at any strength, beside anything."""

import math

import comfy.utils
import pytest
import torch
from support.clips import encoded
from support.compare import differ, relative
from support.concepts import random_lora, with_lora
from support.contexts import random
from support.edloras import loras  # noqa: F401 (fixture)
from support.golden_data import GOLDEN
from support.models import execute, sample, tiny_model
from support.references import prompt
from support.weights import same_weights
from support.word_files import concept_clip

from pack.nodes.text_contexts.concept_words import words_of
from pack.nodes.weight_deltas.weight_deltas_node import CustomDiffusionLoader

GROUP = GOLDEN / "weight_deltas"


def contents():
    return torch.load(GROUP / "custom_diffusion_delta.bin", weights_only=True)


def load(loras, content, model=None, file="delta.bin", **inputs):  # noqa: F811
    torch.save(content, loras / file)
    return execute(CustomDiffusionLoader, model=model or tiny_model(), clip=concept_clip(), delta_file=file, **inputs)


def run(model, **settings):
    return sample(model, prompt(model, 100), prompt(model, 200), steps=2, **settings)


def names(model):
    return comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)


def layouts(model):
    """The golden file's content as each trainer writes it."""
    whole = contents()
    unet, own = whole["unet"], model.model.diffusion_model.state_dict()
    ldm = {f"model.diffusion_model.{names(model)[name]}": weight for name, weight in unet.items()}
    (row,) = whole["modifier_token"].values()
    change = {name: weight - own[names(model)[name]] for name, weight in unet.items()}
    factors = {name: torch.linalg.svd(one, full_matrices=False) for name, one in change.items()}
    compressed = {name: {"u": u * s, "v": v} for name, (u, s, v) in factors.items()}
    library = {
        f"{name.removesuffix('.to_k.weight').removesuffix('.to_v.weight')}.processor."
        f"{'to_k' if '.to_k.' in name else 'to_v'}_custom_diffusion.weight": weight
        for name, weight in unet.items()
    }
    return {
        "research": whole,
        "LDM": {"state_dict": {**ldm, "embed": row[None]}},
        "LDM, flat words": {"state_dict": {**ldm, "embed": torch.cat([row, row])}},
        "compressed": {"unet": compressed, "modifier_token": whole["modifier_token"]},
        "library": {**library, "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor": {}},
        "without words": {"unet": unet, "modifier_token": {}},
    }


@pytest.mark.parametrize("layout", ["LDM", "LDM, flat words", "compressed", "library", "without words"])
def test_layouts(layout, loras):  # noqa: F811
    base = tiny_model()
    found = layouts(base)
    research, clip, words = load(loras, found["research"], base)
    assert words == "<new1>"
    patched, taught, words = load(loras, found[layout], base)
    assert same_weights(patched, research) and differ(run(patched), run(base)) > 1e-2
    counts = {"LDM": 1, "LDM, flat words": 2, "compressed": 1, "library": 0, "without words": 0}
    assert words.split() == [f"<new{number}>" for number in range(1, counts[layout] + 1)]
    if counts[layout]:
        assert torch.equal(encoded(taught, "11 <new1> 33")[0][0], encoded(clip, "11 <new1> 33")[0][0])


def test_strengths(loras):  # noqa: F811
    base = tiny_model()
    off, clip, _ = load(loras, contents(), base, strength=0.0)
    assert not off.patches and torch.equal(run(off), run(base)) and len(words_of(clip)) == 1
    half, _, _ = load(loras, contents(), base, strength=0.5)
    whole, _, _ = load(loras, contents(), base)
    key = next(iter(whole.patches))
    assert half.patches[key][0][0] == 0.5 and not base.patches
    own = base.model.state_dict()[key]
    # at 1 it is the file's own weight
    assert torch.allclose(own + whole.patches[key][0][1][1][0], _weight(base, key), atol=1e-6)


def test_checkpoints_in_fp8_get_the_whole_change(loras):  # noqa: F811
    base = tiny_model()
    base.model.diffusion_model.to(torch.float8_e4m3fn)
    patched, _, _ = load(loras, contents(), base)
    for key, ((_, (_, (change,)), *_),) in patched.patches.items():
        expected = _weight(base, key) - base.model.state_dict()[key].float()
        assert relative(change.float(), expected) < 1e-3


def _weight(base, key):
    named = {f"diffusion_model.{host}": name for name, host in names(base).items()}
    return contents()["unet"][named[key]].float()


def test_beside_loras_and_each_other_in_any_order(loras):  # noqa: F811
    """The checkpoint's own weight counts, whatever is patched or loaded."""
    base = tiny_model()
    lora = random_lora(base, 3)
    patched = with_lora(base, lora, 1.0)
    run(patched)
    before = load(loras, contents(), patched)[0]
    behind = with_lora(load(loras, contents(), base)[0], lora, 1.0)
    assert same_weights(before, behind)
    twice = load(loras, contents(), load(loras, contents(), base)[0])[0]
    doubled = load(loras, contents(), base, strength=2.0)[0]
    assert same_weights(twice, doubled)


def test_another_checkpoint(loras, caplog):  # noqa: F811
    """With the base that it was trained on only the change is added; without, the size of the change is said."""
    base, other = tiny_model(), tiny_model(seed=5)
    patched, _, _ = load(loras, contents(), other, trained_on=base)
    direct, _, _ = load(loras, contents(), base)
    key = next(iter(direct.patches))
    assert torch.allclose(patched.patches[key][0][1][1][0], direct.patches[key][0][1][1][0], atol=1e-6)
    caplog.clear()
    load(loras, contents(), other)
    assert "that is a lot: if the file was trained on another checkpoint" in caplog.text


def test_what_was_not_trained_is_left_out(loras):  # noqa: F811
    base = tiny_model()
    content, own = contents(), base.model.diffusion_model.state_dict()
    name = next(name for name in names(base) if name.endswith("attn2.to_q.weight"))
    content["unet"][name] = own[names(base)[name]].clone()
    patched, _, _ = load(loras, content, base)
    assert f"diffusion_model.{names(base)[name]}" not in patched.patches and len(patched.patches) == 32


def test_other_names_for_the_words(loras):  # noqa: F811
    content = {**contents(), "modifier_token": {"<new1>": random(32), "<new2>": random(32, seed=1)}}
    _, clip, words = load(loras, content, words="<dog> <cat>")
    assert words == "<dog> <cat>" and [word.name for word in words_of(clip)] == ["<dog>", "<cat>"]
    with pytest.raises(ValueError, match=r"has 2 words \(<new1>, <new2>\), words has 3 names"):
        load(loras, content, words="<a> <b> <c>")


def test_a_base_of_another_family_is_refused(loras):  # noqa: F811
    with pytest.raises(ValueError, match=r"trained_on is SDXL and model is SD1\.5; connect the SD1\.5 checkpoint"):
        load(loras, contents(), trained_on=tiny_model("sdxl"))


@pytest.mark.parametrize("own", ["*", "", "sks"])
def test_ordinary_names_are_not_taken(own, loras):  # noqa: F811
    content = {**contents(), "modifier_token": {own: random(32), "toy": random(32, seed=1)}}
    assert load(loras, content)[2] == "<delta> <delta_toy>"
    with pytest.raises(ValueError, match="is read as something else in a prompt"):
        load(loras, content, words="<a> (b)")


KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def bad():
    whole = contents()
    pair = {"u": torch.ones(32, 4), "v": torch.ones(5, 32)}
    return {
        "family": ({**whole, "unet": {KEY: torch.ones(320, 768)}}, "has .* as 320 x 768, the model's is 32 x 32"),
        "layer": ({**whole, "unet": {KEY.replace("s.0.attn2", "s.7.attn2"): torch.ones(32, 32)}}, "does not have"),
        "pair": ({**whole, "unet": {KEY: pair}}, r"u and v of .* are \(32, 4\) and \(5, 32\), which cannot be multi"),
        "half": ({**whole, "unet": {KEY: {"u": torch.ones(32, 4)}}}, "is neither a weight nor a pair of u and v"),
        "text encoder": ({**whole, "text_encoder": {"x": torch.ones(2)}}, "holds a whole text_encoder, which is"),
        "words": ({**whole, "modifier_token": {"<a>": torch.ones(48)}}, "<a> is 48 wide"),
        "LoRA": ({"lora_unet_a.lora_down.weight": torch.ones(2, 2)}, "is a LoRA, not .*; load it with Load LoRA"),
        "words alone": ({"<a>": torch.ones(32)}, "is a file of learned words, not .*; load it with Load Conc"),
        "checkpoint": ({"state_dict": {"first_stage_model.x": torch.ones(2)}}, "is a whole checkpoint, not .*; load"),
    }  # fmt: skip


@pytest.mark.parametrize("name", bad())
def test_bad_files(name, loras):  # noqa: F811
    content, says = bad()[name]
    with pytest.raises(ValueError, match=says) as caught:
        load(loras, content)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="strength is inf"):
        load(loras, contents(), strength=math.inf)
