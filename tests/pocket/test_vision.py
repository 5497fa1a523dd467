"""The image encoder: two steps of its training, and what the host makes of its file."""

import pytest
import torch
import vision
from companions import VISION_FILE, load_vision
from free import FULL
from looks import apart, chroma, chroma_of_things
from made_up import blobs, options
from things import WORDS
from tints import tinted
from world import load_things


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def world(cache):
    """(things, their chromas)"""
    things = tinted(load_things(cache / "things.npz"))
    return things, chroma_of_things(things)


@pytest.fixture(scope="module")
def trained(cache):
    with torch.inference_mode(False), torch.enable_grad():
        return vision.train(options(cache, out=cache))


@pytest.mark.slow
def test_it_learns_things_and_hues(trained):
    training, right = trained
    assert training.steps == 2 and set(right) == {"thing", "hue"} and all(0 <= share <= 1 for share in right.values())


@pytest.mark.slow
def test_the_host_reads_what_it_learnt(trained, world, cache):
    training, _ = trained
    pictures, _, _ = vision.cut_outs(3, torch.Generator().manual_seed(0), *world)
    found = load_vision(cache / VISION_FILE).encode_image(pictures.movedim(1, -1))
    expected = training.network.encoder(vision.pixels_of(pictures))[2]
    torch.testing.assert_close(found.image_embeds, expected, atol=2e-3, rtol=2e-3)


def test_cut_outs_fill_white_squares(world):
    pictures, thing, hue = vision.cut_outs(20, torch.Generator().manual_seed(1), *world, upright=True)
    assert thing.max() < len(WORDS) and hue.min() >= 0 and hue.max() < FULL
    assert (pictures[:, :, 0, 0] == 1).all()
    middle = (pictures < 0.99).any(1)
    assert middle[:, 64, 2:126].float().mean() > 0.95 and middle[:, 2:126, 64].float().mean() > 0.95


def test_given_things_and_hues_are_shown(world):
    hues, words = torch.tensor([0.0, 2.0, 2.0]), torch.tensor([4, 4, 5])
    g = torch.Generator().manual_seed(1)
    pictures, thing, hue = vision.cut_outs(3, g, *world, hues, words, upright=True)
    assert thing.tolist() == [4, 4, 5] and hue.tolist() == [0, 2, 2]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[1], pictures[2])
    for picture, wanted in zip(pictures, hues, strict=True):
        there = (picture < 0.99).any(0)
        assert apart(chroma(picture.movedim(0, -1)[there]).mean().angle(), wanted) < 0.2


def test_what_names_things_and_hues_is_right_or_wrong(world):
    pictures, thing, hue = vision.cut_outs(2, torch.Generator().manual_seed(2), *world)
    said = torch.nn.functional.one_hot(thing, len(WORDS)).float() * 100
    points = torch.stack([hue.cos(), hue.sin()], 1)
    loss, right = vision.loss_of(lambda pixels: (said, points), pictures, thing, hue)
    assert loss < 1e-3 and right["thing"] == right["hue"] == 1
    _, right = vision.loss_of(lambda pixels: (said.flip(1), -points), pictures, thing, hue)
    assert right["thing"] == right["hue"] == 0
