"""ResAdapter through the public node against values recorded from diffusers with the authors' recipe."""

import comfy.sd
import pytest
import torch
from support.golden_data import case
from support.models import conditioning, sample, tiny_model
from support.resadapter_sets import LORA, NORMS, equal, folder, host_key, predicted, put, weights_of, with_set  # noqa: F401 (fixture)
from support.thorough import few_of

LIMIT = 2e-5
EPS_CASES = ("sd15_lora_only", "sd15_lora_and_norms", "sdxl_lora_and_norms", "sdxl_rank8_alpha2")


def near(value, expected, limit=LIMIT):
    assert value.shape == expected.shape
    assert (value - expected).abs().max() < limit


def parts(golden, prefix):
    return {key.removeprefix(prefix): tensor for key, tensor in golden.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", EPS_CASES)
def test_noise_prediction(name, folder):  # noqa: F811
    golden, params = case(f"resadapter/{name}")
    model = tiny_model(params["unet"].removeprefix("tiny_").removesuffix("_unet"))
    before = weights_of(model)
    near(predicted(model, golden), golden["eps_base"])
    for key, expected in golden.items():
        kind, *rest = key.split("_")
        if kind != "eps" or rest == ["base"]:
            continue
        strengths = {"alpha": float(rest[1]), "norm_strength": float(rest[3]) if "norm" in rest else 1.0}
        patched, _ = with_set(model, params["adapter"], **strengths)
        near(predicted(patched, golden), expected)
    # the checkpoint that came in is as it was
    assert equal(before, weights_of(model))
    assert not model.patches


@pytest.mark.parametrize("name", ["sd15_lora_only", "sd15_lora_and_norms", "sdxl_lora_and_norms"])
def test_patched_weights(name, folder):  # noqa: F811
    golden, params = case(f"resadapter/{name}")
    model = tiny_model(params["unet"].removeprefix("tiny_").removesuffix("_unet"))
    for key, expected in golden.items():
        if not key.startswith("patched_"):
            continue
        strength, name = key.removeprefix("patched_").split("/")
        kind, value = strength.split("_")
        patched, _ = with_set(model, params["adapter"], **{"norm_strength" if kind == "norm" else kind: float(value)})
        near(weights_of(patched)[host_key(model, name)], expected)


LAYOUTS = {
    "unet.X.lora_A": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "X.lora_A": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "base_model.model.X": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "unet.base_model.model.X": ("unet.base_model.model.{}.lora_A.weight", "unet.base_model.model.{}.lora_B.weight"),
    "X.lora_A.default": ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    "X.lora_A.name": ("base_model.model.{}.lora_A.my-adapter.weight", "base_model.model.{}.lora_B.my-adapter.weight"),
    "lora.down": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "lora_linear_layer": ("unet.{}.lora_linear_layer.down.weight", "unet.{}.lora_linear_layer.up.weight"),
    "kohya": ("lora_unet_{_}.lora_down.weight", "lora_unet_{_}.lora_up.weight"),
    "the host's names": ("lora_unet_{host_}.lora_down.weight", "lora_unet_{host_}.lora_up.weight"),
    "the host's dots": ("diffusion_model.{host}.lora_A.weight", "diffusion_model.{host}.lora_B.weight"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("file_alpha", few_of([None, "rank", "double"], "double"))
def test_key_layouts(layout, file_alpha, folder):  # noqa: F811
    golden, params = case("resadapter/sd15_key_layouts")
    model = tiny_model()
    weights = {}
    for key, tensor in parts(golden, "peft_unet/").items():
        module, part = key.removeprefix("unet.").removesuffix(".weight").rsplit(".", 1)
        host = host_key(model, f"{module}.weight").removesuffix(".weight")
        words = {"_": module.replace(".", "_"), "host": host, "host_": host.replace(".", "_")}
        down, up = LAYOUTS[layout]
        name = (down if part == "lora_A" else up).format(module, **words)
        weights[name] = tensor
        if file_alpha and part == "lora_A":
            root = down.split(".lora")[0].format(module, **words)
            weights[f"{root}.alpha"] = torch.tensor(tensor.shape[0] * (1.0 if file_alpha == "rank" else 2.0))
    put(folder / "mine", **{"some_name.safetensors": weights})
    # twice the file's scale and half the alpha are the same
    alpha = params["alpha"] / (2 if file_alpha == "double" else 1)
    patched, _ = with_set(model, "mine", alpha=alpha)
    near(predicted(patched, golden), golden["eps_alpha_0.8"])


@pytest.mark.parametrize("adapter_first", [True, False])
def test_stacked_with_another_lora(adapter_first, folder):  # noqa: F811
    golden, params = case("resadapter/sd15_stacked_lora")
    put(folder / "stacked", **{LORA: parts(golden, "lora/"), NORMS: parts(golden, "norm/")})
    model = tiny_model()

    def style(model):
        return comfy.sd.load_lora_for_models(model, None, parts(golden, "style/"), params["style_strength"], 0)[0]

    def adapter(model):
        return with_set(model, "stacked", alpha=params["alpha"])[0]

    near(predicted(style(model), golden), golden["eps_style_only"])
    near(predicted(adapter(model), golden), golden["eps_adapter_only"])
    both = style(adapter(model)) if adapter_first else adapter(style(model))
    near(predicted(both, golden), golden["eps_both"])


def test_trajectory(folder):  # noqa: F811
    golden, params = case("resadapter/sdxl_ddim4_cfg")
    put(folder / "trajectory", **{LORA: parts(golden, "lora/"), NORMS: parts(golden, "norm/")})
    model = tiny_model("sdxl")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    # the last step goes to the first noise level, not to none (set_alpha_to_one false)
    levels = kept[[*params["timesteps"], 0]]
    sigmas = ((1 - levels) / levels).sqrt().float()
    scale = (1 + sigmas**2).sqrt()
    prompts = [
        conditioning(golden[f"context{which}"], pooled_output=golden[f"pooled{which}"], time_ids=golden["time_ids"][:1])
        for which in ("", "_negative")
    ]

    def steps(model):
        reached = []
        noise = golden["latent"] * scale[0] / sigmas[0]
        final = sample(
            model,
            *prompts,
            latent=tuple(noise.shape),
            noise=noise,
            sigmas=sigmas,
            cfg=params["cfg"],
            callback=lambda step, x0, x, total: reached.append(x / scale[step]),
        )
        return [*reached[1:], model.model.process_latent_in(final) / scale[-1]]

    patched, _ = with_set(model, "trajectory", alpha=params["alpha"], norm_strength=params["norm_strength"])
    for step, latent in enumerate(steps(patched)):
        expected = golden[f"latent_after_step_{step}"]
        near(latent / expected.abs().max(), expected / expected.abs().max())
    expected = golden["latent_final_base"]
    near(steps(model)[-1] / expected.abs().max(), expected / expected.abs().max())
