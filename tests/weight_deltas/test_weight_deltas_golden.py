"""Golden numbers of published code: DiffuseKronA and Custom Diffusion, through the public nodes."""

import pytest
import torch
from support.clips import encoded
from support.compare import relative
from support.edloras import loras  # noqa: F401 (fixture)
from support.golden_data import case
from support.models import conditioning, execute, tiny_model
from support.word_files import concept_clip, golden_step, put

from pack.nodes.weight_deltas.weight_deltas_node import CustomDiffusionLoader, KronALoader


def near(ours, golden, limit=1e-4):
    assert (ours - golden).abs().max() < limit


def test_krona(loras):  # noqa: F811
    golden, params = case("weight_deltas/krona_sd15")
    file = put(loras, params["file"], "weight_deltas")
    model = tiny_model()
    patched, report = execute(KronALoader, model=model, krona_file=file)
    assert "KronA for 128 layers" in report
    import comfy.lora
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    for name, delta in golden.items():
        if name.startswith("delta/"):
            key = "diffusion_model." + names[name.removeprefix("delta/").replace("to_out", "to_out.0") + ".weight"]
            zero = torch.zeros_like(delta)
            assert (comfy.lora.calculate_weight(patched.patches[key], zero, key) - delta).abs().max() < 1e-5
    text = conditioning(golden["context"])
    cond, _ = golden_step(patched, text, text, golden["latents"], params["timestep"])
    near(cond, golden["eps"])
    cond, _ = golden_step(model, text, text, golden["latents"], params["timestep"])
    assert relative(cond, golden["eps"]) > 0.1


@pytest.mark.parametrize("name", ["custom_diffusion_delta", "custom_diffusion_library"])
def test_custom_diffusion(name, loras):  # noqa: F811
    golden, params = case(f"weight_deltas/{name}")
    file = put(loras, params["file"], "weight_deltas")
    model, clip, words = execute(
        CustomDiffusionLoader, model=tiny_model(), clip=concept_clip(params["vocabulary"]), delta_file=file
    )
    assert words == ("<new1>" if "<new1>" in params["prompt"] else "")
    positive = encoded(clip, params["prompt"])
    near(positive[0][0], golden["context"])
    cond, _ = golden_step(model, positive, positive, golden["latents"], params["timestep"])
    near(cond, golden["eps"])
    off = execute(CustomDiffusionLoader, model=tiny_model(), clip=concept_clip(params["vocabulary"]), delta_file=file,
                  strength=0.0)[0]  # fmt: skip
    assert not off.patches
    cond, _ = golden_step(off, positive, positive, golden["latents"], params["timestep"])
    near(cond, golden["eps_without"])
