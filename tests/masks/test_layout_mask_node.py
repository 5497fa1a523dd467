"""Layout Mask: the shape at a point of a picture."""

import math
from collections import OrderedDict

import pytest
import torch
from support.concepts import random_lora, with_lora
from support.models import execute, tiny_model
from support.references import PixelVAE, prompt

from pack.nodes.host.latents import centre_crop
from pack.nodes.masks import layout_mask as module
from pack.nodes.masks import shape_maps
from pack.nodes.masks.layout_mask import layout_mask as mask_at
from pack.nodes.masks.layout_mask_node import LayoutMask


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.setattr(shape_maps, "_MAPS", OrderedDict())


@pytest.fixture
def model():
    return tiny_model("sd15")


def layout_mask(model, image, **inputs):
    values = {"vae": PixelVAE(), "layout_positive": prompt(model, 1), **inputs}
    return execute(LayoutMask, model=model, layout_image=image, **values)[0]


def test_layout_mask_is_the_cluster_at_the_point(model):
    """The cell of the map in which the point lies, whatever the picture's aspect."""
    grids = []

    def cluster(rows, k):
        grids.append((len(rows), k))
        return torch.arange(len(rows)) % 4 // 2

    image = torch.rand(1, 64, 128, 3)
    text = tuple(prompt(model, 1)[0])
    mask = mask_at(model, PixelVAE(), image, text, (0.99, 0.0), 5, cluster)
    assert grids == [(4 * 8, 5)] and mask.shape == (1, 64, 128)
    expected = (torch.arange(128) // 32 % 2 == 1).float().expand(1, 64, -1)
    assert torch.equal(mask, expected)
    assert torch.equal(mask_at(model, PixelVAE(), image, text, (0.0, 0.99), 5, cluster), 1 - expected)


def test_of_two_things_in_one_shape_the_one_that_is_pointed_at(model, monkeypatch):
    """Self-attention may see both as one; a corner that joins two cells is enough to stay one thing."""
    left, right = torch.zeros(2, 8, 8)
    left[1:4, 0:3] = left[4, 3] = 1
    right[2:5, 5:7] = 1
    monkeypatch.setattr(module, "kmeans", lambda rows, k, restarts: (left + right).flatten())
    image = torch.rand(1, 128, 128, 3)

    def at(x, y, **inputs):
        return layout_mask(model, image, x=x, y=y, **inputs)[0, ::16, ::16]

    assert torch.equal(at(0.1, 0.3), left) and torch.equal(at(0.45, 0.55), left) and torch.equal(at(0.7, 0.3), right)
    for point in ((0.1, 0.3), (0.7, 0.3)):
        assert torch.equal(at(*point, connected=False), left + right)
    assert torch.equal(at(0.99, 0.99), 1 - left - right)


def test_the_picture_is_brought_to_the_published_noise(model, monkeypatch):
    """Timestep 596 in 30 even steps, and looked at there."""
    seen, real = [], module.inverted
    monkeypatch.setattr(module, "inverted", lambda *args: (seen.append(args[-1]), real(*args))[1])
    looked, run_to = [], module.run_to
    monkeypatch.setattr(module, "run_to", lambda *args: (looked.append(args[2:]), run_to(*args))[1])
    layout_mask(model, torch.rand(1, 64, 64, 3))
    table = model.get_model_object("model_sampling").sigmas
    assert seen == [[float(table[596 * step // 30]) for step in range(1, 31)]]
    ((inputs, options),) = looked
    assert inputs[1].tolist() == [596.0] and options["sigmas"].tolist() == [float(table[596])]


def test_layout_mask_takes_a_part_of_the_picture():
    for kind in ("sd15", "sdxl"):
        model = tiny_model(kind)
        image = torch.zeros(1, 128, 128, 3)
        image[:, :, 64:] = 1
        mask = layout_mask(model, image, x=0.75, y=0.5, clusters=2)
        assert 0 < mask.mean() < 1
        assert mask[0, 64, 96] == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({"x": math.nan}, "x is nan"), ({"y": 1.5}, "y is 1.5"), ({"vae": None}, "also needs vae; connect")],
)
def test_bad_points(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        layout_mask(model, torch.rand(1, 64, 64, 3), **inputs)


def test_tiny_layout_pictures_are_refused(model):
    with pytest.raises(ValueError, match="at least 64x64"):
        layout_mask(model, torch.rand(1, 32, 64, 3))


def test_another_point_of_a_picture_samples_nothing(model, monkeypatch):
    """Nor does another number of shapes; another picture, prompt or model does."""
    runs, real = [], module.inverted
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "inverted", lambda *args: (runs.append(1), real(*args))[1])
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    fresh = layout_mask(model, image, x=0.9, y=0.9, clusters=3)
    layout_mask(model, image, x=0.1, y=0.1)
    assert len(runs) == 1
    assert torch.equal(layout_mask(model, image, x=0.9, y=0.9, clusters=3), fresh) and len(runs) == 1
    others = [
        (model, image.flip(1), {}),
        (model, image, {"layout_positive": prompt(model, 2)}),
        (with_lora(model, random_lora(model, 7), 1.0), image, {}),
        (model, torch.rand(1, 64, 128, 3), {}),
    ]
    for number, (patched, shown, inputs) in enumerate(others, 2):
        layout_mask(patched, shown, **inputs)
        assert len(runs) == number
    # of the pictures asked about last alone, and of none that is too large
    assert len(shape_maps._MAPS) == 2
    monkeypatch.setattr(shape_maps, "_BYTES", 100)
    layout_mask(model, image)
    assert not shape_maps._MAPS


def test_the_mask_is_of_the_pictures_own_size(model, caplog):
    """Where a VAE cuts edges away nothing is white, and what it keeps lies where it lay; that is no crop to tell of."""
    text = tuple(prompt(model, 1)[0])

    def left_quarter(rows, k):
        return (torch.arange(len(rows)) % 8 >= 2).long()

    mask = mask_at(model, PixelVAE(), torch.rand(1, 71, 135, 3), text, (0.1, 0.5), 2, left_quarter)
    assert mask.shape == (1, 71, 135) and not caplog.text
    # 64 x 128 of it are seen, from row 3 and column 3 on
    expected = torch.zeros(1, 71, 135)
    rows, columns = centre_crop((71, 135), (64, 128))
    expected[:, rows, columns.start : columns.start + (columns.stop - columns.start) // 4] = 1
    assert (mask != expected).float().mean() < 0.03
