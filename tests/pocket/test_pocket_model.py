"""The pocket model's loader: widened weights do what the narrow ones did, one copy of weights, clear sentences."""

import gc
import json
import weakref

import comfy.sd
import parts
import pytest
import torch
from comfy.sd1_clip import SD1Tokenizer
from made_up import random_networks, write
from safetensors.torch import load_file, save_file
from samples import draw
from support.thorough import few_of
from things import HELD_OUT
from vocabulary import CLIP_IDS, END, ROWS, rows_of

from pack.nodes.host.families import family_of, native_side
from pack.nodes.pocket import pocket_files
from pack.nodes.pocket.pocket_model import load_pocket

PROMPT = "a dog on the left and a small pizza on the right, blue background"


@pytest.fixture(scope="module")
def narrow():
    return random_networks()


@pytest.fixture(scope="module")
def folder(narrow, tmp_path_factory):
    return write(narrow, tmp_path_factory.mktemp("pocket"))


TOKENIZER = SD1Tokenizer()


def tokens(text):
    return [token for token, _ in TOKENIZER.tokenize_with_weights(text)["l"][0]]


@pytest.mark.parametrize("words", [CLIP_IDS, dict.fromkeys(HELD_OUT)], ids=["known", "held out"])
def test_words_are_single_tokens(words):
    for word, number in words.items():
        found = tokens(word)
        assert found[2] == END and number in (found[1], None), word


def test_captions_are_laid_out_as_the_host_does():
    numbers = list(ROWS.values())
    host = tokens(PROMPT)
    assert [numbers[row] for row in rows_of(PROMPT).tolist()] == host


def test_widened_prompts_repeat_the_narrow_ones(narrow, folder):
    denoiser, _ = narrow
    _, clip, _ = load_pocket(folder)
    context = clip.encode_from_tokens(clip.tokenize(PROMPT))
    expected = denoiser.context(rows_of(PROMPT)[None])
    assert context.shape == (1, 77, 768)
    torch.testing.assert_close(context, expected.repeat(1, 1, 4), atol=2e-5, rtol=1e-4)


def test_the_widened_unet_predicts_what_the_narrow_one_does(narrow, folder):
    denoiser, _ = narrow
    model, _, _ = load_pocket(folder)
    generator = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, 192, generator=generator)
    timesteps = torch.tensor([20, 900])
    expected = denoiser.unet(x, timesteps, context)
    assert expected.std() > 0.01
    unet = model.model.diffusion_model
    wide = unet(x.to(unet.dtype), timesteps, context.repeat(1, 1, 4).to(unet.dtype)).float()
    torch.testing.assert_close(wide, expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


def test_the_host_takes_it_for_sd15(folder):
    model, _, vae = load_pocket(folder)
    assert family_of(model) == "SD1.5" and native_side(model) == 128
    assert model.model.model_config.unet_config["context_dim"] == 768
    assert vae.downscale_ratio == 8 and vae.latent_channels == 4
    assert model.get_model_object("latent_format").scale_factor == parts.SCALE


@pytest.mark.parametrize("size", [(128, 128), (64, 136)])
def test_it_draws(folder, size):
    picture = draw(load_pocket(folder), PROMPT, [1, 2], steps=2, size=size)
    assert picture.shape == (2, *size, 3) and picture.isfinite().all()
    assert not torch.equal(picture[0], picture[1])


def test_a_lora_for_prompts_of_sd15s_width_acts(folder):
    model, clip, vae = load_pocket(folder)
    generator = torch.Generator().manual_seed(3)
    name = "lora_unet_up_blocks_3_attentions_1_transformer_blocks_0_attn2_to_v"
    text = "lora_te_text_model_encoder_layers_1_mlp_fc1"
    shapes = {f"{name}.lora_down": (4, 768), f"{name}.lora_up": (64, 4)}
    shapes |= {f"{text}.lora_down": (4, 768), f"{text}.lora_up": (384, 4)}
    lora = {f"{key}.weight": torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    with_lora = (*comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0), vae)
    assert len(with_lora[0].patches) == 1 and len(with_lora[1].patcher.patches) == 1
    chosen = ((model, clip, vae), with_lora, (model, clip, vae))
    plain, changed, again = (draw(parts, PROMPT, [1], steps=2) for parts in chosen)
    assert not torch.allclose(plain, changed, atol=1e-3)
    torch.testing.assert_close(plain, again, atol=1e-5, rtol=0)


def test_loading_twice_gives_one_copy_and_nothing_stays(folder):
    first, second = load_pocket(folder), load_pocket(folder)
    assert first[0].model is second[0].model and first[0] is not second[0]
    assert first[1].cond_stage_model is second[1].cond_stage_model
    assert first[2].first_stage_model is second[2].first_stage_model
    kept = first[1].clone()
    watched = weakref.ref(first[0].model)
    del first, second
    gc.collect()
    # one part in use keeps the others, so that they are not loaded again
    assert load_pocket(folder)[0].model is watched()
    del kept
    gc.collect()
    assert watched() is None


def test_unknown_words_have_fixed_rows(folder):
    tensors, _, metadata = pocket_files.read_part("text_encoder", folder)
    one, two = (pocket_files.all_tokens(tensors, float(metadata["deviation"]))[pocket_files.TABLE] for _ in range(2))
    assert torch.equal(one, two) and one.shape == (49408, 192)
    assert torch.equal(one[CLIP_IDS["dog"]], tensors["token_rows"][list(CLIP_IDS).index("dog") + 2])
    assert one[40000].float().std() == pytest.approx(float(metadata["deviation"]), rel=0.2)


@pytest.mark.parametrize("name", few_of(["unet", "text_encoder", "autoencoder"], "text_encoder"))
def test_what_is_wrong_with_a_file_is_said(folder, tmp_path, name):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / f"{name}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name}.safetensors is truncated"):
        load_pocket(tmp_path)
    tensors = load_file(folder / path.name)
    metadata = {"config": pocket_files.read_part(name, folder)[1], "deviation": "0.1", "groups": "4"}
    metadata["config"] = json.dumps(metadata["config"])
    lost = next(key for key in tensors if key.endswith("weight"))
    save_file({k: v for k, v in tensors.items() if k != lost}, path, metadata)
    with pytest.raises(ValueError, match=f"lacks {lost}"):
        load_pocket(tmp_path)
    save_file(tensors | {"more": torch.zeros(1)}, path, metadata)
    with pytest.raises(ValueError, match="contains an unexpected tensor more"):
        load_pocket(tmp_path)
    save_file({k: v[..., :1].contiguous() if k == lost else v for k, v in tensors.items()}, path, metadata)
    with pytest.raises(ValueError, match=rf"has {lost} of shape"):
        load_pocket(tmp_path)
    # the number that the width comes from; the autoencoder has none, and is cut short instead
    widths = metadata["config"].replace("hidden_size", "size").replace("context_dim", "dim")
    for damaged in (
        {"config": metadata["config"][:20]},
        {"config": "[" * 100_000},
        {"config": "[1]"},
        {"config": widths if name != "autoencoder" else ""},
        {"deviation": "much", "groups": "4.5"},
        {"deviation": "nan", "groups": "-4"},
    ):
        save_file(tensors, path, metadata | damaged)
        with pytest.raises(ValueError, match=f"the metadata of {name}.safetensors is damaged; reinstall the pack"):
            load_pocket(tmp_path)
    if name != "text_encoder":
        save_file(tensors, path, metadata | {"groups": "7"})
        with pytest.raises(ValueError, match="7 groups do not fit the pocket model's networks; reinstall the pack"):
            load_pocket(tmp_path)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="does not say what network it is for"):
        load_pocket(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="is missing; reinstall the pack"):
        load_pocket(tmp_path)
