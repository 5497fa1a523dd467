"""The image encoder: two steps of its training, and what the host makes of its file."""

import pytest
import torch
import vision
from companions import VISION_FILE, load_vision
from looks import TURNS
from made_up import blobs, options
from things import WORDS
from world import load_things


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def trained(cache):
    with torch.inference_mode(False), torch.enable_grad():
        return vision.train(options(cache, out=cache))


def test_it_learns_things_and_turns(trained):
    training, right = trained
    assert training.steps == 2 and set(right) == {"thing", "turn"} and all(0 <= share <= 1 for share in right.values())


def test_the_host_reads_what_it_learnt(trained, cache):
    training, _ = trained
    things = load_things(cache / "things.npz")
    pictures, _, _ = vision.cut_outs(3, torch.Generator().manual_seed(0), things)
    found = load_vision(cache / VISION_FILE).encode_image(pictures.movedim(1, -1))
    expected = training.network.encoder(vision.pixels_of(pictures))[2]
    torch.testing.assert_close(found.image_embeds, expected, atol=2e-3, rtol=2e-3)


def test_cut_outs_fill_white_squares(cache):
    things = load_things(cache / "things.npz")
    pictures, thing, turn = vision.cut_outs(20, torch.Generator().manual_seed(1), things, upright=True)
    assert thing.max() < len(WORDS) and turn.min() >= 0 and turn.max() < TURNS
    assert (pictures[:, :, 0, 0] == 1).all()
    middle = (pictures < 0.99).any(1)
    assert middle[:, 64, 2:126].float().mean() > 0.95 and middle[:, 2:126, 64].float().mean() > 0.95


def test_given_things_and_turns_are_shown(cache):
    things = load_things(cache / "things.npz")
    turns, words = torch.tensor([0, 3, 3]), torch.tensor([4, 4, 5])
    g = torch.Generator().manual_seed(1)
    pictures, thing, turn = vision.cut_outs(3, g, things, turns, words, upright=True)
    assert thing.tolist() == [4, 4, 5] and turn.tolist() == [0, 3, 3]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[1], pictures[2])
