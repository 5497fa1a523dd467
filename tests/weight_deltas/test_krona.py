"""KronA by property: its factors are told from a LoRA's, and it acts wherever a weight patch does."""

import math

import comfy.utils
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.compare import differ
from support.concepts import conducted, random_concepts, random_lora, strip, with_lora
from support.edloras import loras  # noqa: F401 (fixture)
from support.golden_data import GOLDEN
from support.models import execute, sample, tiny_model
from support.references import prompt
from support.weights import same_weights

from pack.kernels.row_adapters import crossed_linear, crossed_weight
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.row_adapters.weight_patches import patches_beyond
from pack.nodes.weight_deltas.weight_deltas_node import KronALoader

FILE = GOLDEN / "weight_deltas" / "krona_sd15_weights.safetensors"


def load(loras, weights=None, model=None, **inputs):  # noqa: F811
    save_file(load_file(FILE) if weights is None else weights, loras / "krona.safetensors")
    return execute(KronALoader, model=model or tiny_model(), krona_file="krona.safetensors", **inputs)


def run(model, **settings):
    return sample(model, prompt(model, 100), prompt(model, 200), steps=2, **settings)


def dense(model, patched):
    """The MODEL with the same changes as plain differences."""
    clone = model.clone()
    for key, patches in patched.patches.items():
        for strength, value, *_ in patches:
            down, up = value.weights
            clone.add_patches({key: ("diff", (crossed_weight(down.float(), up.float()),))}, strength)
    return clone


def test_the_product_without_the_weight():
    down, up, x = torch.randn(4, 3), torch.randn(5, 2), torch.randn(7, 8)
    weight = crossed_weight(down, up)
    assert weight.shape == (15, 8)
    for p, q, i, j in ((0, 0, 0, 0), (4, 2, 3, 1), (2, 1, 0, 1)):
        assert torch.isclose(weight[p * 3 + q, i * 2 + j], up[p, j] * down[i, q])
    assert torch.allclose(crossed_linear(x, down, up), x @ weight.T, atol=1e-5)


def test_strengths(loras):  # noqa: F811
    base = tiny_model()
    off, _ = load(loras, model=base, strength=0.0)
    assert not off.patches and torch.equal(run(off), run(base))
    for strength in (1.0, -0.7, 2.0):
        patched, report = load(loras, model=base, strength=strength)
        assert f"Strength {strength:g}." in report and not base.patches
        assert differ(run(patched), run(dense(base, patched))) < 1e-5
    assert differ(run(patched), run(base)) > 1e-2


def test_beside_loras_in_any_order(loras):  # noqa: F811
    base = tiny_model()
    lora = random_lora(base, 3)
    before = load(loras, model=with_lora(base, lora, 1.0))[0]
    behind = with_lora(load(loras, model=base)[0], lora, 1.0)
    assert same_weights(before, behind)


def test_as_a_concept_of_the_conductor(loras):  # noqa: F811
    """It shares the picture's batch as its dense twin does, and equal files are one path."""
    base = tiny_model()
    patched, _ = load(loras, model=base)

    def conduct(model):
        inputs = {"positive": prompt(base, 305), "mask": strip(1, 2), "concepts": random_concepts(base, 1)}
        return conducted(base, execute(AddConcept, model=model, **inputs)[0])

    ours, twin = conduct(patched), conduct(dense(base, patched))
    assert differ(run(ours), run(twin)) < 1e-4
    assert differ(run(ours), run(conduct(base))) > 1e-4
    again, _ = load(loras, model=base)
    assert patches_beyond(patched.patches, again.patches) == {}
    other, _ = load(loras, {name: 2 * t for name, t in load_file(FILE).items()}, model=base)
    assert len(patches_beyond(patched.patches, other.patches)) == 128


def test_feed_forwards_and_names_without_their_prefix(loras):  # noqa: F811
    base = tiny_model()
    name = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
    key = comfy.utils.unet_to_diffusers(base.model.model_config.unet_config)[f"{name}.weight"]
    out, inner = base.model.diffusion_model.state_dict()[key].shape
    pair = {"down": torch.randn(8, 4), "up": torch.randn(out // 4, inner // 8)}
    patched, _ = load(loras, {f"{name}.lora_layer.{half}.weight": t for half, t in pair.items()}, model=base)
    assert list(patched.patches) == [f"diffusion_model.{key}"]


ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"


def one(down, up, to="to_k"):
    stem = f"{ATTENTION}.processor.{to}_lora"
    return {f"{stem}.down.weight": torch.ones(*down), f"{stem}.up.weight": torch.ones(*up)}


BAD = {
    "a LoRA": (one((4, 32), (32, 4)), "is an ordinary LoRA, not a KronA file; load it with Load LoRA"),
    "sizes": (one((8, 16), (4, 4)), r"changes .*attn2.to_k as 64 x 32, the model's is 32 x 32"),
    "family": (one((16, 16), (2, 64)), r"changes .*attn2.to_k as 32 x 1024 \(SD2.x\), the model's is 32 x 32"),
    "alpha": ({**one((8, 16), (2, 4)), f"{ATTENTION}.processor.to_k_lora.alpha": torch.ones(1)}, "has an alpha"),
    "text": ({**one((8, 16), (2, 4)), "text_encoder.x.to_q_lora.down.weight": torch.ones(2, 2)},
             r"has a part for a text encoder, .* \(text_encoder.x"),
    "half": (dict(list(one((8, 16), (2, 4)).items())[:1]), "lacks the other half of down_blocks.0"),
    "layer": ({key.replace("down_blocks.0", "down_blocks.9"): t for key, t in one((8, 16), (2, 4)).items()},
              "changes down_blocks.9.*, which this model does not have"),
    "key": ({**one((8, 16), (2, 4)), "unet.x.weight": torch.ones(2, 2)}, "contains unet.x.weight, which is no part"),
    "another file": ({"lora_unet_a.lora_down.weight": torch.ones(2, 2)}, "is not a KronA file but a LoRA; load it"),
    "no file": ({"x": torch.ones(2, 2, 2)}, "is not a KronA file; choose one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, loras):  # noqa: F811
    weights, says = BAD[name]
    with pytest.raises(ValueError, match=says) as caught:
        load(loras, weights)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="strength is nan"):
        load(loras, strength=math.nan)
