"""The picture of five points, against those that the published code drew with OpenCV."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.keypoint_picture import COLOURS, keypoint_picture


@pytest.mark.parametrize("name", ["frontal", "turned", "small", "large", "edge"])
def test_published_pictures_to_the_last_pixel(name):
    golden, _ = case("instantid/keypoints")
    expected = golden[f"{name}/picture"]
    assert torch.equal(keypoint_picture([golden[f"{name}/keypoints"]], expected.shape[:2]), expected)


def test_pictures_of_the_recorded_runs():
    golden, _ = case("instantid/ext_2people_regions")
    for points, expected in zip(golden["keypoints"], golden["keypoint_picture"], strict=True):
        assert torch.equal(keypoint_picture([points], expected.shape[:2]), expected)


def test_face_after_face():
    golden, _ = case("instantid/keypoints")
    far = torch.tensor([200.0, 0.0])
    one, two = golden["frontal/keypoints"], golden["frontal/keypoints"] + far
    both = keypoint_picture([one, two], (128, 328))
    assert all(torch.equal(part, golden["frontal/picture"]) for part in (both[:, :128], both[:, 200:]))
    over = keypoint_picture([one, one + 3], (128, 128))
    alone = keypoint_picture([one + 3], (128, 128))
    drawn = (alone > 0).any(-1)
    assert torch.equal(over[drawn], alone[drawn])


def test_points_outside_leave_the_rest():
    points = torch.tensor([[-500.0, -500.0], [900.0, 20.0], [40.0, 40.0], [30.0, 60.0], [50.0, 60.0]])
    picture = keypoint_picture([points], (80, 80))
    assert tuple(picture[40, 40].tolist()) == COLOURS[2] and picture.any()
    assert not keypoint_picture([points + 5000], (80, 80)).any() and not keypoint_picture([], (8, 8)).any()
