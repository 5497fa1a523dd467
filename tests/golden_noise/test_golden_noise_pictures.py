"""What Golden Noise, Re-denoise and Train NPNet show on their nodes."""

import numpy as np
import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from support.noise_pairs import learn, make_pairs
from support.references import draw

from pack.nodes.golden_noise import noise_picture
from pack.nodes.golden_noise.noise_picture import picture_of_change, show_change
from pack.nodes.host import loss_curve
from pack.nodes.host.loss_curve import LossCurve


def test_where_noise_grows_it_is_red_and_where_it_shrinks_blue():
    noise = draw(2, 4, 8, 16, seed=1)
    golden = noise.clone()
    golden[0, :, 0, 0] += 1
    golden[0, :, 7, 15] -= 1
    golden[1] += 5
    picture = np.array(picture_of_change(noise, golden))
    assert picture.shape == (128 + 24, 256, 3)
    assert tuple(picture[4, 4]) == (255, 0, 0) and tuple(picture[124, 252]) == (0, 0, 255)
    assert tuple(picture[64, 128]) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (1, 4, 3, 40), (1, 4, 40, 3)])
def test_any_size_and_no_change_can_be_drawn(shape):
    noise = draw(*shape, seed=1)
    picture = np.array(picture_of_change(noise, noise))
    assert tuple(picture[0, 0]) == (255, 255, 255)
    assert picture_of_change(torch.zeros(shape), noise).size[0] >= 256


def test_nothing_is_drawn_without_a_node(monkeypatch):
    monkeypatch.setattr(noise_picture, "picture_of_change", None)
    show_change(draw(1, 4, 8, 8), draw(1, 4, 8, 8), None)


@pytest.mark.parametrize("shape", [(1, 64, 32), (1, 4, 3, 8, 8)])
def test_noise_of_sound_and_video_is_no_picture(monkeypatch, shape):
    monkeypatch.setattr(noise_picture, "picture_of_change", None)
    show_change(draw(*shape), draw(*shape, seed=1), "7")


def test_the_curve_falls_with_the_loss():
    curve = LossCurve(before=1.0)
    for step in range(40):
        curve.add(step, 1.2 * 0.9**step)
    pixels = np.array(curve.picture())
    lit = (pixels == np.array(loss_curve._LINE)).all(-1)
    first, last = (np.flatnonzero(lit[:, x]).mean() for x in (66, 346))
    assert last > first + 100


def test_training_shows_its_curve(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(loss_curve, "show_picture", lambda picture, node: shown.append((picture.size, node)))
    curve = LossCurve(1.0)
    curve.show()
    with CurrentNodeContext("run", "7"):
        curve = LossCurve(1.0)
    curve.add(0, 0.5)
    curve.show()
    curve.add(1, 0.4)
    curve.show()
    assert shown == [((360, 220), "7")]


@pytest.fixture
def folders(monkeypatch, tmp_path):
    import folder_paths

    for kind in ("npnet", "npnets"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("count", "said"), [(9, "9 pairs"), (10, "9 pairs")])
def test_the_report_says_what_was_held_out_and_what_lies_on_the_disk(folders, count, said, monkeypatch):
    from support.noise_pairs import SMALL

    from pack.nodes.golden_noise import npnet_training

    monkeypatch.setattr(npnet_training, "PUBLISHED_SIZES", SMALL)
    make_pairs(count)
    _, report = learn(2)
    size = (folders / "npnet_pairs" / "mine.training").stat().st_size
    assert f"2 steps, {said} (it goes on from mine.training, {size / 1e6:.0f} MB, in output/npnet_pairs)" in report
    assert ("too few to hold any out: collect 10 or more" in report) == (count < 10)
    assert ("1 held out" in report) == (count == 10)
