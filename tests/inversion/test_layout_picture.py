"""The layout picture: fitted, encoded, inverted, kept on disk."""

import os
import resource

import comfy.model_base
import comfy.model_management as mm
import comfy.model_sampling
import folder_paths
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from safetensors.torch import load_file, save_file
from support.compare import differ, relative
from support.concepts import conducted, golden_case, golden_model, random_concepts, text_of
from support.models import StubVAE, execute, sample, tiny_model
from support.references import PixelVAE, draw, prompt
from support.thorough import few_rows_of

from pack.nodes.concept_conductor import conductor_run
from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
from pack.nodes.inversion import inversion, inversion_cache, kept_inversions, layout_picture
from pack.nodes.inversion.inversion_cache import LAYOUT_FILES, REFERENCE_FILES


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return tmp_path / "personalization" / "inversions"


@pytest.fixture
def model():
    return tiny_model("sd15")


@pytest.mark.parametrize(("steps", "last"), few_rows_of([(50, 999), (999, 201), (999, 999)], (50, 999)))
def test_golden_inversion(steps, last):
    """Levels up to timestep `last`."""
    golden, params = golden_case("sd15_inversion")
    model = golden_model(params)
    sampling = model.get_model_object("model_sampling")
    levels = inversion.levels_of(sampling, steps, [])
    assert len(levels) == steps
    levels = [level for level in levels if level <= sampling.sigmas[last]]
    text = text_of(golden, "ref", params)[0]
    latents = inversion.inverted(model.model, golden["latent_clean"], text, levels)
    found = kept_inversions.Inversion(sampling, levels, latents)
    stored = [timestep for timestep in params[f"stored_timesteps_{steps}"] if timestep <= last]
    assert len(stored) > 1 and set(stored) <= set(found.timesteps)
    for timestep in stored:
        assert relative(found.at(timestep), golden[f"inv{steps}/t{timestep}"]) < 1e-4


def test_golden_inversion_through_the_node(monkeypatch):
    """What the seam serves during a run, at the sampler's own timestep."""
    golden, params = golden_case("sd15_inversion")
    model = golden_model(params)
    served, real = [], conductor_run.Conducting.layout_latent

    def layout_latent(conducting, *where):
        served.append((where, real(conducting, *where)))
        return served[-1][1]

    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", layout_latent)
    patched = conducted(
        model,
        random_concepts(model, 1),
        layout_image=torch.rand(1, 128, 128, 3),
        layout_positive=text_of(golden, "ref", params),
        vae=StubVAE(model, golden["latent_clean"]),
        inversion_steps=50,
        guidance_end=1.0,
        guidance_weight=1e-9,
    )
    table = model.get_model_object("model_sampling").sigmas
    sigmas = torch.stack([table[981], table[581], torch.zeros(())])
    sample(patched, prompt(model, 100), prompt(model, 200), latent=(1, 4, 16, 16), sigmas=sigmas)
    assert [where for where, _ in served] == [(0, 981), (1, 581)]
    for (_, timestep), latent in served:
        assert relative(latent, golden[f"inv50/t{timestep}"]) < 1e-4


def test_own_levels_are_the_samplers():
    sampling = tiny_model("sd15").get_model_object("model_sampling")
    assert inversion.levels_of(sampling, 0, [14.0, 3.0, 3.0, 0.5, 0.0]) == [0.5, 3.0, 14.0]
    # ddim_uniform's levels are those of as many evenly spaced steps
    table = sampling.sigmas
    schedule = [float(table[1 + 20 * i]) for i in reversed(range(50))] + [0.0]
    assert inversion.levels_of(sampling, 0, schedule) == inversion.levels_of(sampling, 50, [])


@pytest.mark.parametrize("steps", [1, 30, 300, 600, 998])
def test_levels_reach_the_most_noise_whatever_the_steps(steps):
    """The sampler's first level is looked up in them: the nearest must not be far off."""
    sampling = tiny_model("sd15").get_model_object("model_sampling")
    levels = inversion.levels_of(sampling, steps, [])
    gap = 1000 // steps
    assert [float(sampling.sigmas[1 + gap * i]) for i in range(len(levels))] == levels
    assert len(levels) >= steps and float(sampling.timestep(torch.tensor([levels[-1]]))) > 999 - gap


def test_levels_of_a_distilled_model():
    """LCM knows 50 levels for its 1000 timesteps."""
    (lcm,) = ModelSamplingDiscrete().patch(tiny_model("sd15"), "lcm", False)
    sampling = lcm.get_model_object("model_sampling")
    assert len(sampling.sigmas) == 50
    levels = inversion.levels_of(sampling, 100, [])
    assert levels == sorted(set(levels)) and levels[-1] == pytest.approx(float(sampling.sigmas[-1]), rel=0.2)
    assert inversion.level_at(sampling, 999) == pytest.approx(float(sampling.sigmas[-1]))


def with_layout(model, **inputs):
    return conducted(model, random_concepts(model, 1), layout=True, guidance_end=0.0, guidance_weight=0.1, **inputs)


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


def rows_of(model):
    rows = []
    model.model.diffusion_model.time_embed.register_forward_hook(lambda layer, args, out: rows.append(len(out)))
    return rows


def test_a_second_picture_inverts_nothing(model, folder):
    patched = with_layout(model, cache_mb=64)
    rows = rows_of(model)
    first = picture(patched, seed=1)
    # what the model is told by, the inversion, the layout picture's keys, the gradient, three steps
    assert rows == [1, *[1] * 3, 1, 2, 4, 4, 4]
    rows.clear()
    assert not torch.equal(picture(patched, seed=2), first)
    assert rows == [1, 2, 4, 4, 4]
    assert torch.equal(picture(patched, seed=1), first)
    assert len(list(folder.glob("*"))) == 1
    # a node that is made anew, as after a restart
    rows.clear()
    assert torch.equal(picture(with_layout(model, cache_mb=64), seed=1), first)
    assert rows.count(1) <= 2


SAMPLINGS = ["prediction", "schedule", "settings"]


@pytest.mark.parametrize("change", ["picture", "prompt", "size", "steps", "weights", "patch", *SAMPLINGS])
def test_what_decides_the_inversion_is_its_key(model, change):
    latent, text, levels = draw(1, 4, 8, 8), prompt(model, 1)[0], [0.5, 3.0]

    def key():
        return inversion_cache.key_of(model.model, latent, text, levels)

    before = key()
    assert key() == before
    if change == "picture":
        latent = latent + 1e-3
    elif change == "prompt":
        text = prompt(model, 2)[0]
    elif change == "size":
        latent = draw(1, 4, 8, 16)
    elif change == "steps":
        levels = [0.5, 2.0, 3.0]
    elif change == "weights":
        model.model.diffusion_model.out[2].weight.mul_(1.001)
    elif change == "patch":
        model.model.diffusion_model.input_blocks[1][0].out_layers[3].weight.add_(1e-3)
    elif change == "prediction":
        kinds = (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION)
        sampling = type("ModelSamplingAdvanced", kinds, {})(model.model.model_config)
        sampling.load_state_dict(model.model.model_sampling.state_dict(), strict=False)
        model.model.model_sampling = sampling
    elif change == "schedule":
        model.model.model_sampling.set_sigmas(model.model.model_sampling.sigmas * 1.01)
    else:
        model.model.model_sampling.sigma_data = 0.9
    assert key() != before


def test_the_cache_keeps_to_its_budget(folder):
    size = draw(2, 4, 8, 8).numel() * 4
    for number in range(6):
        inversion_cache.save(LAYOUT_FILES, f"key{number}", draw(2, 4, 8, 8, seed=number), int(3.7 * size))
        assert torch.equal(inversion_cache.load(LAYOUT_FILES, f"key{number}"), draw(2, 4, 8, 8, seed=number))
    kept = sorted(path.stem for path in folder.glob("*"))
    assert kept[-1] == "key5" and len(kept) == 3
    # used again, it stays
    used = draw(2, 4, 8, 8, seed=int(kept[0].removeprefix("key")))
    assert torch.equal(inversion_cache.load(LAYOUT_FILES, kept[0]), used)
    inversion_cache.save(LAYOUT_FILES, "another", draw(2, 4, 8, 8), int(3.7 * size))
    assert torch.equal(inversion_cache.load(LAYOUT_FILES, kept[0]), used)
    assert {path.stem for path in folder.glob("*")} == {kept[0], kept[2], "another"}
    inversion_cache.save(LAYOUT_FILES, "too large", draw(2, 4, 8, 8), size // 2)
    assert inversion_cache.load(LAYOUT_FILES, "too large") is None


def test_a_small_budget_of_one_kind_leaves_the_files_of_another(folder):
    latents = draw(2, 4, 8, 8)
    size = latents.numel() * 4
    for kind, other in ((LAYOUT_FILES, REFERENCE_FILES), (REFERENCE_FILES, LAYOUT_FILES)):
        for number in range(2):
            inversion_cache.save(other, f"key{number}", latents, 10 * size)
        for number in range(2):
            inversion_cache.save(kind, f"key{number}", latents, int(1.7 * size))
        assert [inversion_cache.load(kind, f"key{number}") is None for number in range(2)] == [True, False]
        assert all(torch.equal(inversion_cache.load(other, f"key{number}"), latents) for number in range(2))
        for path in folder.rglob("*.safetensors"):
            path.unlink()
    assert inversion_cache.folder(LAYOUT_FILES) == folder


def test_a_broken_file_is_made_anew(folder):
    folder.mkdir(parents=True)
    (folder / "broken.safetensors").write_bytes(b"nothing of the kind")
    assert inversion_cache.load(LAYOUT_FILES, "broken") is None
    inversion_cache.save(LAYOUT_FILES, "broken", draw(1, 4, 8, 8), 1 << 20)
    assert torch.equal(inversion_cache.load(LAYOUT_FILES, "broken"), draw(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"latents": torch.full((1, 4, 8, 8), torch.nan)}, "NaN or infinite"),
        ({"other": torch.ones(1, 4, 8, 8)}, "contains something else"),
        ({"latents": torch.ones(2, 4, 8, 8)}, "contains something else"),
        (None, "is a folder"),
    ],
    ids=["nan", "other", "another shape", "folder"],
)
def test_a_kept_picture_that_is_none_is_made_anew(tensors, says, folder, caplog):
    path = folder / "bad.safetensors"
    if tensors is None:
        path.mkdir(parents=True)
    else:
        folder.mkdir(parents=True)
        save_file(tensors, path)
    assert inversion_cache.load(LAYOUT_FILES, "bad", (1, 4, 8, 8)) is None
    assert says in caplog.text and "inverted again" in caplog.text


def test_a_bad_kept_picture_changes_no_result(model, folder):
    first = picture(with_layout(model, cache_mb=64))
    (kept,) = folder.iterdir()
    save_file({"latents": load_file(kept)["latents"] * torch.nan}, kept)
    assert torch.equal(picture(with_layout(model, cache_mb=64)), first)
    assert torch.isfinite(load_file(kept)["latents"]).all()


def test_what_others_are_writing_counts_and_what_they_left_goes(folder):
    folder.mkdir(parents=True)
    latents = draw(2, 4, 8, 8)
    size = latents.numel() * 4
    inversion_cache.save(LAYOUT_FILES, "first", latents, 3 * size)
    part = folder / f"other.safetensors.1-{'ab' * 16}.part"
    part.write_bytes(bytes(size))
    inversion_cache.save(LAYOUT_FILES, "second", latents, 3 * size)
    assert sorted(path.stem for path in folder.glob("*.safetensors")) == ["second"] and part.exists()
    os.utime(part, (1, 1))
    inversion_cache.save(LAYOUT_FILES, "third", latents, 4 * size)
    assert sorted(path.stem for path in folder.iterdir()) == ["second", "third"]


def test_a_kept_picture_may_be_replaced_in_place(folder):
    inversion_cache.save(LAYOUT_FILES, "key", torch.ones(64, 4, 64, 64), 1 << 24)
    found = inversion_cache.load(LAYOUT_FILES, "key")
    os.truncate(folder / "key.safetensors", 100)  # how every copy over it begins
    child = os.fork()
    if child == 0:
        os._exit(0 if float(found.sum()) == found.numel() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_that_cannot_be_written_is_no_failure(folder, caplog):
    """A full disk, and a folder where the file shall be."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        inversion_cache.save(LAYOUT_FILES, "full", draw(2, 4, 64, 64), 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be saved" in caplog.text
    caplog.clear()
    (folder / "key.safetensors").mkdir()
    inversion_cache.save(LAYOUT_FILES, "key", draw(1, 4, 8, 8), 1 << 20)
    assert "cannot be saved" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["key.safetensors"]


def test_no_cache_leaves_no_file(model, folder):
    picture(with_layout(model, cache_mb=0))
    assert not folder.exists()


def test_interrupted_inversion_leaves_nothing(model, folder):
    patched = with_layout(model, cache_mb=64)
    first = picture(with_layout(tiny_model("sd15"), cache_mb=0))
    steps = []

    def interrupt(layer, args, out):
        steps.append(1)
        if len(steps) == 3:
            mm.interrupt_current_processing(True)

    handle = model.model.diffusion_model.time_embed.register_forward_hook(interrupt)
    with pytest.raises(mm.InterruptProcessingException):
        picture(patched)
    handle.remove()
    mm.interrupt_current_processing(False)
    assert len(steps) == 3 and not list(folder.glob("*"))
    assert float((picture(patched) - first).abs().max()) < 1e-3 * float(first.abs().max())


def test_progress_is_shown(model, monkeypatch):
    import comfy.utils

    told = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **more: told.append((value, total))
    )
    picture(with_layout(model, cache_mb=0, inversion_steps=4))
    assert (4, 4) in told


def test_fitted_pictures(monkeypatch):
    said = []
    monkeypatch.setattr(layout_picture, "warn_user", said.append)
    pixels = torch.rand(1, 96, 128, 3)
    assert layout_picture.fitted_to(pixels, (96, 128)).equal(pixels)
    # half the size: the mean of 2 x 2 pixels
    half = pixels.unflatten(1, (48, 2)).unflatten(3, (64, 2)).mean((2, 4))
    torch.testing.assert_close(layout_picture.fitted_to(pixels, (48, 64)), half)
    assert not said
    square = layout_picture.fitted_to(pixels, (96, 96))
    assert square.equal(pixels[:, :, 16:112]) and "32 pixels of its width" in said[0]
    assert layout_picture.fitted_to(pixels, (256, 128)).shape == (1, 256, 128, 3)


def test_the_vae_is_asked_once_per_size(model):
    class Counting(PixelVAE):
        calls = 0

        def encode(self, pixels):
            self.calls += 1
            return super().encode(pixels)

    vae = Counting()
    patched = with_layout(model, vae=vae)
    for _ in range(3):
        picture(patched, steps=1)
    assert vae.calls == 1
    picture(patched, steps=1, latent=(1, 4, 8, 16))
    assert vae.calls == 2


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"vae": None}, "also needs vae; connect"),
        ({"layout_positive": None}, "also needs layout_positive; connect"),
        ({"layout_image": torch.full((1, 64, 64, 3), torch.nan)}, "NaN or infinite"),
        ({"layout_image": torch.rand(1, 64, 64)}, "connect an IMAGE"),
    ],
)
def test_bad_layouts(model, inputs, message):
    good = {"layout_image": torch.rand(1, 64, 64, 3), "layout_positive": prompt(model, 1), "vae": PixelVAE()}
    with pytest.raises(ValueError, match=message):
        execute(ConceptConductor, model=model, concepts=random_concepts(model, 1), **{**good, **inputs})


def test_a_vae_of_another_model_is_refused(model):
    with pytest.raises(ValueError, match="VAE that belongs"):
        picture(with_layout(model, vae=PixelVAE(channels=16)))


def test_v_prediction():
    """A model of v is inverted by the noise that its v speaks of: eps = (v + sigma z) / sqrt(1 + sigma^2)."""
    other = tiny_model("sd15", model_type=comfy.model_base.ModelType.V_PREDICTION, seed=3)
    table = other.model.model_sampling.sigmas
    levels, before, expected = [float(table[t]) for t in (1, 300, 700)], float(table[0]), []
    x = draw(1, 4, 8, 8) * (1 + before**2) ** 0.5
    for level, timestep in zip(levels, (1.0, 300.0, 700.0), strict=True):
        z = x / (1 + before**2) ** 0.5
        v = other.model.diffusion_model._forward(z, torch.tensor([timestep]), prompt(other, 500)[0][0], None, None, {})
        x = x + (level - before) * (v + level * z) / (1 + level**2) ** 0.5
        before = level
        expected.append(x / (1 + level**2) ** 0.5)
    found = inversion.inverted(other.model, draw(1, 4, 8, 8), prompt(other, 500)[0], levels)
    assert relative(found, torch.cat(expected)) < 1e-4
    assert differ(picture(with_layout(other)), picture(conducted(other, random_concepts(other, 1)))) > 1e-3


def test_noise_and_v_say_the_same():
    """About the noise that is in a latent."""
    other = tiny_model("sd15", model_type=comfy.model_base.ModelType.V_PREDICTION, seed=3)
    sampling, sigma = other.model.model_sampling, torch.tensor([2.0])
    noise, clean = draw(1, 4, 8, 8), draw(1, 4, 8, 8, seed=1)
    root = 5**0.5
    v = (noise - 2 * clean) / root
    z = (clean + 2 * noise) / root
    torch.testing.assert_close(inversion._noise(sampling, v, z, sigma), noise, rtol=1e-4, atol=1e-4)
