"""ResAdapter by property: off is nothing, all or nothing, blends, stacks, every kind of set."""

import comfy.sd
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_model_merging import ModelMergeSimple
from support.models import execute, tiny_model
from support.references import picture, with_references
from support.resadapter_sets import (  # noqa: F401 (fixture)
    LORA,
    NORMS,
    POCKET_SET,
    equal,
    folder,
    golden_set,
    patched_unet,
    put,
    random_set,
    weights_of,
    with_set,
)

from pack.nodes.resadapter import adapter_sets as resadapter_sets
from pack.nodes.resadapter import resadapter
from pack.nodes.resadapter.resadapter_node import ResAdapterExport
from pack.nodes.resadapter.set_export import export_resadapter

NAMED = "any size-LoRA.safetensors + any size_norms.safetensors"
SD15, SDXL = "tiny_resadapter_v2_sd1.5", "tiny_resadapter_v2_sdxl"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def told(monkeypatch):
    sentences = []
    monkeypatch.setattr(resadapter, "warn_user", sentences.append)
    return sentences


def by_stock_loader(model, path, strength=1.0):
    return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), strength, 0)[0]


@pytest.mark.parametrize(
    "inputs",
    [
        {"alpha": 0.0, "norm_strength": 0.0},
        {"alpha": 0.0, "norms": "off"},
        {"alpha": 0.0, "link_norms": True},
        {"alpha": 0.0, "link_norms": True, "adapter_set": "norms alone"},
    ],
)
def test_off_is_bit_equal(model, inputs, folder):  # noqa: F811
    put(folder / "norms alone", **{NORMS: golden_set(SD15)[1]})
    inputs = {"adapter_set": SD15, **inputs}
    off, _ = with_set(model, inputs.pop("adapter_set"), **inputs)
    assert not off.patches
    assert torch.equal(picture(off), picture(model))


def test_the_checkpoint_is_untouched_by_runs_of_the_patched_one(model, folder):  # noqa: F811
    before, weights = picture(model), weights_of(model)
    patched, _ = with_set(model, SD15)
    assert not torch.allclose(picture(patched), before)
    assert torch.equal(picture(model), before)
    assert equal(weights, weights_of(model))


@pytest.mark.parametrize(("alpha", "norm_strength"), [(0.3, 0.6), (1.5, 0.25), (0.5, 1.0)])
def test_the_formula(model, alpha, norm_strength, folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    base = weights_of(model)
    got = weights_of(with_set(model, SD15, alpha=alpha, norm_strength=norm_strength)[0])
    expected = dict(base)
    for name, key in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items():
        module = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        if f"{module}.alpha" in lora:
            down, up = (lora[f"{module}.lora_{way}.weight"].float() for way in ("down", "up"))
            scale = alpha * float(lora[f"{module}.alpha"]) / len(down)
            expected[key] = base[key] + scale * torch.einsum("orxy,rihw->oihw", up, down)
        elif name in norms:
            expected[key] = (1 - norm_strength) * base[key] + norm_strength * norms[name]
    assert sum(not torch.equal(got[key], base[key]) for key in base) == 6 + 88
    for key, tensor in expected.items():
        torch.testing.assert_close(got[key], tensor, rtol=0, atol=2e-6)


def test_linked_norms_follow_alpha_within_0_and_1(model, folder):  # noqa: F811
    for alpha, norm_strength in ((0.4, 0.4), (1.5, 1.0)):
        linked, _ = with_set(model, SD15, alpha=alpha, link_norms=True)
        apart, _ = with_set(model, SD15, alpha=alpha, norm_strength=norm_strength)
        assert equal(weights_of(linked), weights_of(apart))


def test_norms_are_off_for_interpolation_unless_asked_for(model, folder, told):  # noqa: F811
    lora, norms = golden_set(SD15)
    put(folder / "my_interpolation", **{LORA: lora, NORMS: norms})
    auto, report = with_set(model, "my_interpolation")
    assert len(auto.patches) == 6 and "norms: off (auto" in report and not told
    on, report = with_set(model, "my_interpolation", norms="on")
    assert len(on.patches) == 94 and "norms: 88 tensors, strength 1" in report


@pytest.mark.parametrize("name", ["sd1.5-i", "resadapter_v1_sd1.5_interpolation", "mine_interpolation"])
def test_a_set_for_small_sizes_is_known_by_its_folder(name, folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    put(folder / name, **{LORA: lora, NORMS: norms})
    assert resadapter_sets.read_set(name).interpolates


def test_folders_are_found_with_the_separators_of_any_system(folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    put(folder / "below" / "mine", **{LORA: lora, NORMS: norms})
    for name in ("below/mine", "below\\mine"):
        assert resadapter_sets.check_choice(name) is True and resadapter_sets.read_set(name).name == "below/mine"
        assert resadapter_sets.set_changed(name) == resadapter_sets.set_changed("below/mine")
    assert resadapter_sets.check_choice("below\\other") is not True


def test_a_folder_of_another_family_tells_nothing(folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    put(folder / "resadapter_v1_sdxl_interpolation_no", **{LORA: lora, NORMS: norms})
    assert resadapter_sets.read_set("resadapter_v1_sdxl_interpolation_no").like is None


def test_the_report_says_what_was_done(model, folder, told):  # noqa: F811
    _, report = with_set(model, SD15, alpha=0.7)
    assert report.splitlines() == [
        "tiny_resadapter_v2_sd1.5 on SD1.5",
        "LoRA: 6 convolutions, rank 4, the file's scale 0.5, alpha 0.7",
        "norms: 88 tensors, strength 1",
    ]
    assert not told


def test_halves_are_applied_and_said(model, folder, told):  # noqa: F811
    put(folder / "norms alone", **{NORMS: golden_set(SD15)[1]})
    patched, report = with_set(model, "tiny_resadapter_v1_sd1.5_interpolation")
    assert len(patched.patches) == 6 and "it works up to the native size only" in report
    patched, report = with_set(model, "norms alone")
    assert len(patched.patches) == 88 and "the norms alone are not enough" in report
    assert len(told) == 2


@pytest.mark.slow
def test_behind_a_model_merge_the_set_acts_in_full_and_it_is_said(model, folder, told):  # noqa: F811
    """Before it, the set is merged like the rest of its checkpoint: by its share."""
    other = tiny_model("sd15", seed=5)

    def merged(first):
        return ModelMergeSimple().merge(first, other, 0.25)[0]

    adapted, _ = with_set(model, SD15)
    assert not told
    behind, report = with_set(merged(model), SD15)
    assert "88 norms of this model were already replaced, by a model merge or another ResAdapter" in told[-1]
    assert told[-1].split(": ", 1)[1] in report and "Behind a merge that is right" in report
    full, share, alone, there = map(weights_of, (behind, merged(adapted), adapted, other))
    names = [key.removeprefix("diffusion_model.") for key in adapted.patches]
    norms = [key for key in names if alone[key].ndim == 1]
    assert len(norms) == 88
    for key in norms:
        torch.testing.assert_close(full[key], alone[key], rtol=0, atol=2e-6)
        torch.testing.assert_close(share[key], 0.25 * alone[key] + 0.75 * there[key], rtol=0, atol=2e-6)


def test_collisions_are_said(model, folder, told):  # noqa: F811
    once, _ = with_set(model, SD15)
    twice, report = with_set(once, SD15)
    assert "88 norms of this model were already replaced" in told[-1] and told[-1].split(": ", 1)[1] in report
    assert "6 of them already have a LoRA" in report
    # the LoRAs add up, the norms are those of the last one
    double, _ = with_set(model, SD15, alpha=1.5)
    half, _ = with_set(once, SD15, alpha=0.5)
    one, two = weights_of(double), weights_of(half)
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=0, atol=2e-6)

    key = "diffusion_model.middle_block.0.in_layers.0.weight"
    lycoris = model.clone()
    assert lycoris.add_patches({key: (torch.ones(64),)}) == [key]
    with_set(lycoris, SD15)
    assert "changes 1 of these norms and is overridden there: put ResAdapter first" in told[-1]
    count = len(told)
    with_set(lycoris, SD15, norms="off")
    assert len(told) == count


def test_a_set_of_any_form_is_the_same(model, folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    expected = weights_of(with_set(model, SD15)[0])
    put(folder / "swapped", **{LORA: norms, NORMS: lora})
    put(folder / "prefixed", **{"b.safetensors": {f"unet.{k}": v for k, v in norms.items()}, "a.safetensors": lora})
    put(folder / "one file", **{"both.safetensors": lora | norms})
    put(folder / "deep" / "er", **{"resolution_lora.safetensors": lora, "resolution_normalization.safetensors": norms})
    put(folder, **{LORA: lora, NORMS: norms, "any size-LoRA.safetensors": lora, "any size_norms.safetensors": norms})
    (folder / "pickled").mkdir()
    torch.save(lora | norms, folder / "pickled" / "set.bin")
    exported = export_resadapter(model, SD15, "exported")
    put(folder, **{"exported.safetensors": comfy.utils.load_torch_file(exported)})
    forms = (
        "swapped",
        "prefixed",
        "one file",
        "deep/er",
        f"{LORA} + {NORMS}",
        NAMED,
        "pickled",
        "exported.safetensors",
    )
    for form in forms:
        assert equal(weights_of(with_set(model, form)[0]), expected), form


def test_the_list_of_sets(folder):  # noqa: F811
    lora, norms = golden_set(SD15)
    names = sorted(path.name for path in folder.iterdir())
    assert resadapter_sets.set_choices() == [*names, POCKET_SET]
    # in a folder of more than two files each stands for itself, beside the pairs of known names
    put(folder / "many", **{LORA: lora, NORMS: norms, "third.safetensors": lora})
    pair = f"many/{LORA} + many/{NORMS}"
    singles = [f"many/{name}" for name in (NORMS, LORA, "third.safetensors")]
    assert resadapter_sets.set_choices("none") == ["none", pair, *singles, *names, POCKET_SET]


@pytest.mark.parametrize(
    ("kind", "name"), [("sd15", SD15), ("sdxl", SDXL), ("sdxl", "tiny_resadapter_v1_sdxl_extrapolation")]
)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_stock_loader_applies_an_export_in_full(kind, name, strength, folder):  # noqa: F811
    model = tiny_model(kind)
    (path,) = execute(ResAdapterExport, model=model, adapter_set=name, file_name="mine")
    assert path == str(folder.parent / "loras" / "mine.safetensors")
    stock = by_stock_loader(model, path, strength)
    assert len(stock.patches) == (94 if kind == "sd15" else 72)
    ours = weights_of(with_set(model, name, alpha=strength)[0])
    for key, tensor in weights_of(stock).items():
        torch.testing.assert_close(tensor, ours[key], rtol=0, atol=2e-6)


def test_an_export_is_never_overwritten(model, folder):  # noqa: F811
    path = export_resadapter(model, SD15, "mine.safetensors")
    # the same content may be asked for again
    assert export_resadapter(model, SD15, "mine") == path
    with pytest.raises(ValueError, match="already exists in the loras folder with different contents"):
        export_resadapter(model, "tiny_resadapter_v1_sd1.5_interpolation", "mine")


def test_half_precision_is_rounded_once(folder):  # noqa: F811
    exact = weights_of(with_set(tiny_model(), SD15)[0])
    for dtype in (torch.float16, torch.bfloat16):
        patched = weights_of(with_set(tiny_model(dtype=dtype), SD15)[0])
        for key, tensor in patched.items():
            assert tensor.dtype == dtype
            # the base is rounded to begin with, then the sum
            torch.testing.assert_close(tensor.float(), exact[key], rtol=4 * torch.finfo(dtype).eps, atol=1e-2)


def test_inpainting_models_are_of_the_family(folder):  # noqa: F811
    patched, _ = with_set(tiny_model(in_channels=9, seed=1), SD15)
    assert len(patched.patches) == 94


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_multi_reference_self_attention(model, ours_first, folder):  # noqa: F811
    def adapter(model):
        return with_set(model, SD15)[0]

    both = with_references(adapter(model)) if ours_first else adapter(with_references(model))
    made = picture(both)
    # the same as references on a checkpoint that has these weights by itself
    merged = tiny_model()
    merged.model.diffusion_model.load_state_dict(weights_of(adapter(model)))
    torch.testing.assert_close(made, picture(with_references(merged)), rtol=0, atol=1e-5)
    assert not torch.allclose(made, picture(with_references(model)), atol=1e-3)


def test_random_sets_fit_the_model_they_are_made_for(folder):  # noqa: F811
    model = tiny_model("sdxl")
    with patched_unet(model) as unet:
        shapes = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    lora, norms = random_set(model.model.model_config.unet_config, shapes)
    put(folder / "random", **{LORA: lora, NORMS: norms})
    patched, _ = with_set(model, "random")
    assert len(patched.patches) == 72
