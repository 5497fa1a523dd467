"""The Golden Noise nodes: golden data through the public nodes, files, bad inputs, and both routes to one picture."""

import math
from dataclasses import replace

import comfy.latent_formats
import comfy.samplers
import folder_paths
import pytest
import torch
from safetensors.torch import save_file
from support.compare import close, differ
from support.harmful import Harmful
from support.models import conditioning, execute, tiny_model
from support.npnets import (
    FOLDER,
    golden_case,
    recipe_in_double,
    recipe_prompt,
    recipe_weights,
    tiny_contents,
    tiny_weights,
)
from support.references import draw

from pack.nodes.golden_noise import golden_noise as npnet
from pack.nodes.golden_noise import npnet_file
from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseModel, GoldenNoiseNode
from pack.nodes.golden_noise.npnet_node import NPNetLoader
from pack.nodes.golden_noise.redenoise_node import Redenoise


class Given:
    """A NOISE of the host that hands out given tensors by size."""

    seed = 7

    def __init__(self, *tensors):
        self.tensors = {tuple(t.shape[-2:]): t for t in tensors}

    def generate_noise(self, latent):
        return self.tensors[tuple(latent["samples"].shape[-2:])].clone()


class Drawn:
    """Random Noise as the host has it."""

    def __init__(self, seed=7):
        self.seed = seed

    def generate_noise(self, latent):
        import comfy.sample

        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The golden file and an empty second folder, as the host's folders."""
    extensions = folder_paths.supported_pt_extensions
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", ([str(FOLDER)], {".pth"}))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnets", ([str(tmp_path)], set(extensions)))
    # the host remembers lists of files
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def net():
    return execute(NPNetLoader, npnet_file="tiny_npnet.pth")[0]


@pytest.fixture(scope="module")
def full_net():
    return npnet_file.net_from(recipe_weights(), "recipe")


def golden(net, noise, prompt, latent=None, **inputs):
    wrapped, _ = execute(GoldenNoiseNode, noise=noise, npnet=net, conditioning=conditioning(prompt), **inputs)
    return wrapped.generate_noise({"samples": latent})


def write(folder, contents, name):
    torch.save(contents, folder / name) if name.endswith("pth") else save_file(contents, folder / name)
    folder_paths.filename_list_cache.clear()


def test_the_network_is_brought_to_its_device_once_for_all_tiles(net, monkeypatch):
    size = 2 * net.sizes.side
    noise, prompt = torch.randn(1, 4, size, size), conditioning(torch.randn(1, 77, net.sizes.prompt))
    wrapped, _ = execute(GoldenNoiseNode, noise=Given(noise), npnet=net, conditioning=prompt, size_mode="tile")
    brought, real = [], npnet._weights_on
    monkeypatch.setattr(npnet, "_weights_on", lambda *args: (brought.append(args), real(*args))[1])
    wrapped.generate_noise({"samples": noise})
    assert len(brought) == 1


@pytest.mark.parametrize("name", ["forward_b1", "forward_b2_two_prompts", "forward_b3_one_prompt"])
def test_recorded_forward(net, name):
    t, _ = golden_case(name)
    close(golden(net, Given(t["noise"]), t["prompt"], torch.zeros_like(t["noise"])), t["golden"], 1e-4)


def test_recorded_long_prompt(net):
    t, _ = golden_case("long_prompt_154")
    for how, tolerance in (("truncate", 1e-4), ("average", 1e-4), ("recurse", 1e-3)):
        close(golden(net, Given(t["noise"]), t["prompt"], t["noise"], long_prompt=how), t[how], tolerance)
    half = golden(net, Given(t["noise"]), t["prompt"], t["noise"], strength=0.5)
    close(half, t["truncate_strength_0.5"], 1e-4)


def test_recorded_sizes(net, monkeypatch):
    t, params = golden_case("other_sizes")
    for height, width in params["sizes"]:
        name = f"{height}x{width}"
        noise = Given(t[f"{name}/noise"], t[f"{name}/noise_native"])
        monkeypatch.setattr(npnet, "extra_noise", lambda seed, like, name=name: t[f"{name}/canvas"])
        close(golden(net, noise, t["prompt"], t[f"{name}/noise"]), t[f"{name}/tile"], 1e-4)
        found = golden(net, noise, t["prompt"], t[f"{name}/noise"], size_mode="resize")
        close(found, t[f"{name}/resize_nearest_exact"], 1e-4)
        plain = golden(net, noise, t["prompt"], t[f"{name}/noise"], size_mode="off")
        assert torch.equal(plain, t[f"{name}/noise"])


def test_full_size_recipe(full_net):
    t, _ = golden_case("full_size_recipe")
    found = golden(full_net, Given(t["noise"]), recipe_prompt(), t["noise"])
    close(found.double(), recipe_in_double(t["noise"])["golden"], 2e-4)


@pytest.mark.parametrize("size", [(104, 152), (96, 168), (128, 256)])
def test_tiles_stay_white(full_net, size):
    latent, prompt = torch.zeros(1, 4, *size), recipe_prompt()
    # full random weights change any noise beyond white, at any size; a trained network changes it a little
    little = npnet_file.net_from(_changing_little(full_net.weights), "little")
    plain = Drawn().generate_noise({"samples": latent})
    found = golden(little, Drawn(), prompt, latent)
    assert 0.005 < (found - plain).norm() / plain.norm() < 0.1
    assert max(abs(c) for c in _neighbours(found)) < 0.02
    assert abs(found.std() - 1) < 0.02
    # what the nodes that came before do
    assert max(_neighbours(golden(little, Drawn(), prompt, latent, size_mode="resize"))) > 0.1


def _changing_little(weights):
    faint = {key: 0.05 * weights[key] for key in ("alpha", "beta", "unet_svd.mlp4.2.weight", "unet_svd.mlp4.2.bias")}
    return {**weights, **faint}


def _neighbours(noise):
    """Correlation of neighbours along both axes."""
    centred = noise - noise.mean()
    for axis in (-1, -2):
        n = noise.shape[axis] - 1
        yield float((centred.narrow(axis, 0, n) * centred.narrow(axis, 1, n)).mean() / centred.var())


def test_strength_0_is_plain_noise(net):
    prompt, latent = torch.randn(1, 77, 8), torch.zeros(2, 4, 24, 40)
    plain = Drawn().generate_noise({"samples": latent})
    assert torch.equal(golden(net, Drawn(), prompt, latent, strength=0.0), plain)
    model = tiny_model()
    inputs = {"model": model, "npnet": net, "conditioning": conditioning(prompt)}
    assert execute(GoldenNoiseModel, **inputs, strength=0.0)[0] is model


def test_a_new_noise_each_time(net):
    """Two nodes in one graph, and two executions of one node, keep their own settings."""
    prompt, latent = torch.randn(1, 77, 8), torch.zeros(1, 4, 32, 32)
    inputs = {"noise": Drawn(), "npnet": net, "conditioning": conditioning(prompt)}
    strong, report = execute(GoldenNoiseNode, **inputs)
    weak, _ = execute(GoldenNoiseNode, **inputs, strength=0.25)
    assert strong is not weak and strong.seed == 7
    first = strong.generate_noise({"samples": latent})
    plain = Drawn().generate_noise({"samples": latent})
    torch.testing.assert_close(weak.generate_noise({"samples": latent}), plain + 0.25 * (first - plain))
    assert torch.equal(first, strong.generate_noise({"samples": latent}))
    first.zero_()
    assert torch.any(strong.generate_noise({"samples": latent}))
    assert "tiny_npnet.pth" in report and "32x32" in report and "\n" not in report


def test_batches_are_their_images(net):
    """An image gets in a batch what it gets alone, at any size, by its index in the batch."""
    prompt = torch.randn(3, 77, 8)
    for size in ((32, 32), (24, 40)):
        batch = golden(net, Drawn(), prompt, torch.zeros(5, 4, *size))
        wrapped, _ = execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=conditioning(prompt[:1]))
        alone = wrapped.generate_noise({"samples": torch.zeros(1, 4, *size), "batch_index": [3]})
        torch.testing.assert_close(batch[3:4], alone, atol=1e-4, rtol=0)


def test_half_precision_noise_keeps_its_type(net):
    noise, prompt = draw(1, 4, 32, 32).half(), draw(1, 77, 8, seed=1)
    found = golden(net, Given(noise), prompt, noise)
    # computed in full precision, rounded once at the end
    full = golden(net, Given(noise.float()), prompt, noise.float())
    assert found.dtype == torch.float16 and torch.equal(found, full.half())
    assert differ(found.float(), noise.float()) > 0.1


def test_redenoise_recorded():
    for name in ("redenoise_sdxl", "redenoise_sdxl_10_steps"):
        t, params = golden_case(name)
        model = tiny_model("sdxl")
        (noise,) = execute(
            Redenoise,
            noise=Given(t["noise"]),
            model=model,
            positive=conditioning(t["context"], pooled_output=t["pooled"], time_ids=t["time_ids"]),
            negative=conditioning(t["context_negative"], pooled_output=t["pooled_negative"], time_ids=t["time_ids"]),
            steps=params["steps"],
        )
        close(noise.generate_noise({"samples": torch.zeros_like(t["noise"])}), t["golden"], 1e-4)
        assert noise.seed == 7


# files


def test_all_layouts_give_the_same_network(folder, net):
    flat = {k: t.contiguous() for k, t in tiny_weights().items()}
    write(folder, {k.replace("embeeding.", "text_embedding."): t for k, t in flat.items()}, "a.safetensors")
    write(folder, flat, "b.safetensors")
    write(folder, old_timm(tiny_contents()), "old.pth")
    for name in ("a.safetensors", "b.safetensors", "old.pth"):
        found = execute(NPNetLoader, npnet_file=name)[0]
        assert found.weights.keys() == net.weights.keys()
        assert all(torch.equal(found.weights[key], t) for key, t in net.weights.items())
        assert not any(t.requires_grad for t in found.weights.values())


def old_timm(contents):
    """The container as timm 0.6 would have named it."""
    swin, other = {}, {}
    for key, t in contents["unet_embedding"].items():
        for stage in range(1, 4):
            key = key.replace(f"swin.layers.{stage}.downsample.", f"swin.layers.{stage - 1}.downsample.")
        key = key.replace("head.fc.", "head.")
        (swin if key.startswith("swin.") else other)[key] = t
    for name in [key for key in swin if key.endswith("qkv.bias")]:
        swin[name.replace("qkv.bias", "relative_position_index")] = torch.zeros(49, 49, dtype=torch.int64)
    swin["swin.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return {**contents, "unet_embedding": {**other, **swin}}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_foreign_globals_is_refused_and_not_run(folder, zipped):
    contents = {**tiny_contents(), "extra": Harmful(folder / "ran")}
    torch.save(contents, folder / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil.pth is not safe: it asks for \w+.mkdir; nothing in it was run"):
        execute(NPNetLoader, npnet_file="evil.pth")
    assert not (folder / "ran").exists()


def _cut(path, source, share):
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_broken_files_are_told_apart(folder):
    golden_file = FOLDER / "tiny_npnet.pth"
    _cut(folder / "cut.pth", golden_file, 0.5)
    write(folder, {k: t.contiguous() for k, t in tiny_weights().items()}, "whole.safetensors")
    _cut(folder / "cut.safetensors", folder / "whole.safetensors", 0.5)
    torch.save(tiny_contents(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    _cut(folder / "legacy_cut.pth", folder / "legacy.pth", 0.5)
    for name, data in {
        "page.pth": b"<!DOCTYPE html><html>sign in</html>",
        "page.safetensors": b"\n<html>404</html>",
        "pointer.pth": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "empty.pth": b"",
        "noise.pth": bytes(range(1, 200)),
    }.items():
        (folder / name).write_bytes(data)
    _cut(folder / "renamed.safetensors", golden_file, 1)
    for name, says in {
        "cut.pth": "truncated",
        "cut.safetensors": "truncated",
        "legacy_cut.pth": "truncated, damaged",
        "page.pth": "web page",
        "page.safetensors": "web page",
        "pointer.pth": "Git LFS pointer",
        "empty.pth": "is empty",
        "noise.pth": "neither a safetensors nor",
        "renamed.safetensors": "rename it to renamed.pth",
    }.items():
        with pytest.raises(ValueError, match=says) as caught:
            execute(NPNetLoader, npnet_file=name)
        assert name in str(caught.value) and "not safe" not in str(caught.value) and "\n" not in str(caught.value)
    assert execute(NPNetLoader, npnet_file="legacy.pth")[0].sizes.side == 32


def _without(contents, group, key=None):
    contents = tiny_contents() if contents is None else contents
    if key is None:
        del contents[group]
    else:
        del contents[group][key]
    return contents


def _with(group, key, value):
    contents = tiny_contents()
    contents[group][key] = value
    return contents


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: _without(None, "unet_svd"), "unet_svd.mlp3.0.weight is missing"),
        (lambda: _without(None, "alpha"), "alpha is missing"),
        (lambda: _without(None, "embeeding", "linear.bias"), "embeeding.linear.bias is missing"),
        (lambda: _with("unet_svd", "mlp1.0.weight", torch.zeros(64, 63)), r"mlp1.0.weight has the shape \[64, 63\]"),
        (lambda: _with("unet_svd", "more", torch.zeros(2)), "unet_svd.more is unexpected"),
        (lambda: {"model.weight": torch.zeros(3)}, "is missing"),
        (lambda: torch.zeros(3), "cannot be read as weights"),
        (
            lambda: _with("embeeding", "linear.bias", torch.full((8,), math.nan)),
            "NaN or infinite values at embeeding.linear.bias",
        ),
    ],
)
def test_files_that_are_no_npnet(folder, make, says):
    write(folder, make(), "other.pth")
    with pytest.raises(ValueError, match=says) as caught:
        execute(NPNetLoader, npnet_file="other.pth")
    assert "other.pth" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("width", "family"),
    [(2048, "SDXL (2048)"), (1024, "SD2.x or Hunyuan-DiT (1024)"), (768, "SD1.5 (768)"), (8, "prompts 8 wide")],
)
def test_a_network_is_called_by_the_width_of_its_prompts(net, width, family):
    assert replace(net, sizes=replace(net.sizes, prompt=width)).family == family


def test_names_of_files(folder, monkeypatch):
    write(folder, tiny_contents(), "mine.pth")
    options = NPNetLoader.define_schema().inputs[0].options
    assert options == ["tiny_npnet.pth", "mine.pth", "pocket: npnet"]
    assert NPNetLoader.validate_inputs(npnet_file="mine.pth") is True
    assert NPNetLoader.validate_inputs() is True
    missing = NPNetLoader.validate_inputs(npnet_file="sdxl.pth")
    assert 'npnet_file "sdxl.pth" is not in' in missing and str(folder) in missing and "mine.pth" in missing
    before = NPNetLoader.fingerprint_inputs(npnet_file="mine.pth")
    write(folder, {**tiny_contents(), "alpha": torch.zeros(1)}, "mine.pth")
    assert before != NPNetLoader.fingerprint_inputs(npnet_file="mine.pth")

    for kind in ("npnet", "npnets"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(folder / "none")], {".pth"}))
    folder_paths.filename_list_cache.clear()
    entry, _ = NPNetLoader.define_schema().inputs[0].options
    assert "models/npnet" in entry
    assert "nothing is there yet" in NPNetLoader.validate_inputs(npnet_file=entry)


def test_the_folders_are_the_hosts(monkeypatch):
    monkeypatch.undo()
    for kind in ("npnet", "npnets"):
        paths, extensions = folder_paths.folder_names_and_paths[kind]
        assert any(path.endswith(kind) for path in paths) and {".pth", ".safetensors"} <= set(extensions)


# bad inputs


@pytest.mark.parametrize(
    ("prompt", "inputs", "says"),
    [
        (torch.zeros(1, 77, 768), {}, "the prompt's embeddings are 768 wide: SD1.5 has no NPNet"),
        (torch.zeros(1, 77, 4096), {}, "the prompt's embeddings are 4096 wide: that is a T5 encoder"),
        (torch.zeros(1, 80, 8), {}, "the prompt has 80 tokens"),
        (torch.zeros(1, 0, 8), {}, "the prompt has 0 tokens"),
        (torch.zeros(0, 77, 8), {}, "conditioning contains no text"),
        (torch.zeros(1, 77, 8), {"strength": math.nan}, "strength is nan"),
    ],
)
def test_bad_prompts(net, prompt, inputs, says):
    for node, more in ((GoldenNoiseNode, {"noise": Drawn()}), (GoldenNoiseModel, {"model": tiny_model()})):
        with pytest.raises(ValueError, match=says) as caught:
            execute(node, npnet=net, conditioning=conditioning(prompt), **more, **inputs)
        assert "\n" not in str(caught.value)


def test_no_prompt_and_several(net, monkeypatch):
    with pytest.raises(ValueError, match="conditioning is empty"):
        execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=[])
    told = []
    monkeypatch.setattr(npnet, "warn_user", told.append)
    first, second = torch.randn(1, 77, 8), torch.randn(1, 77, 8)
    both = conditioning(first) + conditioning(second)
    noise, _ = execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=both)
    assert len(told) == 1 and "2 prompts" in told[0]
    latent = torch.zeros(1, 4, 32, 32)
    assert torch.equal(noise.generate_noise({"samples": latent}), golden(net, Drawn(), first, latent))


@pytest.mark.parametrize(
    ("latent", "says"),
    [
        (torch.zeros(1, 16, 8, 8), r"this one has 16 \(SD3, Flux"),
        (torch.zeros(1, 4, 3, 8, 8), "this is a video or audio latent"),
    ],
)
def test_other_latents_are_refused(net, latent, says):
    with pytest.raises(ValueError, match=says):
        golden(net, Drawn(), torch.randn(1, 77, 8), latent)


def test_not_a_number_falls_back_to_plain_noise(net, monkeypatch):
    told = []
    monkeypatch.setattr(npnet, "warn_user", told.append)
    latent = torch.zeros(1, 4, 32, 32)
    found = golden(net, Drawn(), torch.full((1, 77, 8), math.inf), latent)
    assert torch.equal(found, Drawn().generate_noise({"samples": latent}))
    assert told and "NaN or infinite" in told[0]


def test_redenoise_refuses_what_it_cannot_do():
    model, text = tiny_model(), conditioning(torch.randn(1, 7, 32))
    inputs = {"noise": Drawn(), "model": model, "positive": text, "negative": text}
    with pytest.raises(ValueError, match="guidance is nan"):
        execute(Redenoise, **{**inputs, "guidance": math.nan})
    with pytest.raises(ValueError, match="positive is empty"):
        execute(Redenoise, **{**inputs, "positive": []})
    flow = model.clone()

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    flow.add_object_patch("model_sampling", Flow())
    with pytest.raises(ValueError, match="predicts noise or v"):
        execute(Redenoise, **{**inputs, "model": flow})


@pytest.mark.parametrize("name", ["StableAudio1", "Mochi"])
def test_redenoise_refuses_models_of_sound_and_video(name):
    model, text = tiny_model(), conditioning(torch.randn(1, 7, 32))
    model.model.latent_format = getattr(comfy.latent_formats, name)()
    with pytest.raises(ValueError, match="needs a picture model that predicts noise or v"):
        execute(Redenoise, noise=Drawn(), model=model, positive=text, negative=text)
