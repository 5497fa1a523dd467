"""Picture sizes: rounding, areas, the suggested alpha, and what is said about a set's range."""

import math

import comfy_extras.nodes_model_advanced as advanced
import pytest
import torch
from support.models import execute, tiny_model
from support.resadapter_sets import folder  # noqa: F401 (fixture)

from pack.nodes.resadapter import resolution as sizes
from pack.nodes.resadapter.resadapter_node import Resolution
from pack.nodes.resadapter.resolution import ASPECTS

USEFUL = {
    "sd15": "256x256 256x384 320x512 384x384 512x768 640x960 768x768 960x1088 1024x1024",
    "sdxl": "256x256 288x512 384x384 512x512 640x384 768x768 1216x1600 1280x1280 1344x1728 1536x1536",
}
MODELS = {"sd15": 512, "sdxl": 1024}


@pytest.fixture(scope="module")
def models():
    return {kind: tiny_model(kind) for kind in MODELS}


@pytest.fixture(autouse=True)
def told(monkeypatch):
    sentences = []
    monkeypatch.setattr(sizes, "warn_user", sentences.append)
    return sentences


def size_of(model, **inputs):
    inputs = {"adapter_set": "none", **inputs}
    return execute(Resolution, model=model, **inputs)


@pytest.mark.parametrize("kind", MODELS)
def test_useful_sizes_stay_as_they_are(kind, models):
    for size in USEFUL[kind].split():
        width, height = map(int, size.split("x"))
        got = size_of(models[kind], aspect="custom", custom_width=width, custom_height=height)
        assert got[1:3] == (width, height) and "became" not in got[4]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("aspect", [aspect for aspect in ASPECTS if aspect != "custom"])
@pytest.mark.parametrize("megapixels", [0.0625, 0.25, 0.5, 1.0, 2.25])
def test_areas_and_aspects(kind, aspect, megapixels, models):
    latent, width, height, _, _ = size_of(models[kind], aspect=aspect, megapixels=megapixels, batch_size=3)
    multiple = 64 if kind == "sd15" else 32
    across, down = map(int, aspect.split(":"))
    exact = math.sqrt(megapixels * 1024**2 * across / down), math.sqrt(megapixels * 1024**2 * down / across)
    for side, wanted in zip((width, height), exact):
        assert side % multiple == 0 and abs(side - wanted) <= multiple / 2
    assert latent["samples"].shape == (3, 4, height // 8, width // 8) and not latent["samples"].any()


def test_known_sizes(models):
    for kind, aspect, megapixels, size in (
        ("sd15", "1:1", 1.0, (1024, 1024)),
        ("sd15", "2:3", 0.375, (512, 768)),
        ("sd15", "16:9", 0.5, (960, 512)),
        ("sdxl", "16:9", 1.0, (1376, 768)),
        ("sdxl", "1:1", 2.25, (1536, 1536)),
        ("sdxl", "21:9", 1.0, (1568, 672)),
    ):
        assert size_of(models[kind], aspect=aspect, megapixels=megapixels)[1:3] == size


@pytest.mark.parametrize("kind", MODELS)
def test_suggested_alpha(kind, models):
    native = MODELS[kind]
    for factor, alpha in ((0.5, 1.0), (1.0, 1.0), (1.125, 0.7), (1.25, 0.7), (1.5, 0.5), (2.0, 0.5)):
        side = int(native * factor)
        got = size_of(models[kind], aspect="custom", custom_width=side, custom_height=side)
        assert got[3] == alpha, factor


@pytest.mark.parametrize("sampling", ["lcm", "eps"])
def test_acceleration_is_seen_where_the_sampling_tells(sampling, models):
    (model,) = advanced.ModelSamplingDiscrete().patch(models["sd15"], sampling, False)
    for side, alpha in ((512, 1.0), (1024, 0.5)):
        got = size_of(model, aspect="custom", custom_width=side, custom_height=side)
        assert got[3] == (min(alpha, 0.6) if sampling == "lcm" else alpha)


def test_sides_are_rounded_and_said(models, told):
    got = size_of(models["sd15"], aspect="custom", custom_width=500, custom_height=8)
    assert got[1:3] == (512, 64) and "500 x 8 became 512 x 64" in got[4] and told
    assert size_of(models["sdxl"], aspect="custom", custom_width=1010, custom_height=1040)[1:3] == (1024, 1056)


@pytest.mark.parametrize(
    ("kind", "name", "width", "height", "says"),
    [
        ("sd15", "tiny_resadapter_v2_sd1.5", 1024, 1024, ""),
        ("sd15", "tiny_resadapter_v2_sd1.5", 1088, 1088, "mean side of 1088"),
        ("sd15", "tiny_resadapter_v2_sd1.5", 256, 1024, "0.25, tiny_resadapter_v2_sd1.5 is made for 0.28 to 3.5"),
        ("sd15", "tiny_resadapter_v1_sd1.5_interpolation", 576, 576, "made for 128 to 512"),
        ("sd15", "tiny_resadapter_v1_sd1.5_interpolation", 256, 576, "made for 0.5 to 2"),
        ("sdxl", "tiny_resadapter_v1_sdxl_extrapolation", 960, 960, "made for 1024 to 1536"),
        ("sdxl", "tiny_resadapter_v2_sdxl", 256, 256, ""),
        ("sd15", "none", 512, 512, ""),
        ("sd15", "none", 1024, 1024, "without a ResAdapter SD1.5 works well only near 512 x 512"),
    ],
)
def test_the_range_of_a_set(kind, name, width, height, says, models, told, folder):  # noqa: F811
    got = size_of(models[kind], adapter_set=name, aspect="custom", custom_width=width, custom_height=height)
    assert got[1:3] == (width, height) and says in got[4] and bool(got[4]) == bool(says) == bool(told)


def test_what_it_cannot_size(models, folder):  # noqa: F811
    for inputs, says in (
        ({"megapixels": math.nan}, "megapixels is nan"),
        ({"megapixels": 0.0}, "megapixels is 0.0"),
        ({"adapter_set": "tiny_resadapter_v2_sdxl"}, "this is the SDXL ResAdapter"),
        ({"adapter_set": "gone"}, "is not in"),
    ):
        with pytest.raises(ValueError, match=says):
            size_of(models["sd15"], **inputs)
    with pytest.raises(ValueError, match="this model is SD2.x"):
        size_of(tiny_model("sd2", seed=1))


def test_the_latent_is_what_the_sampler_takes(models):
    assert size_of(models["sd15"])[0]["samples"].dtype == torch.float32
