"""A person on white, against the pictures of the published code."""

import torch
from support.golden_data import case

from pack.kernels.face_alignment import aligned, similarity, template
from pack.kernels.person_picture import on_white, squashed

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def apart(one, other):
    return (one.int() - other.int()).abs().max()


def corner(picture):
    """The first 8 x 8 pixels as CLIP's encoder gets them."""
    pixels = picture[:8, :8].float().movedim(-1, 0) / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def test_published_pictures():
    golden, _ = case("storymaker/crops")
    body = on_white(golden["picture"], golden["mask"])
    assert body.shape == golden["body_on_white"].shape and apart(body, golden["body_on_white"]) <= 1
    assert apart(squashed(golden["body_on_white"], 224), golden["body_224"]) <= 1
    face = aligned(golden["picture"], similarity(golden["keypoints"], template(224)), 224).round()
    assert apart(face, golden["face_224"]) <= 3 and (face - golden["face_224"].float()).abs().mean() < 0.5
    for name in ("body", "face"):
        assert (corner(golden[f"{name}_224"]) - golden[f"{name}_pixels_corner"]).abs().max() < 1e-5


def test_a_mask_of_a_line_is_kept():
    mask = torch.zeros(40, 40)
    mask[10:12, 5:30] = 255
    found = on_white(torch.zeros(40, 40, 3, dtype=torch.uint8), mask)
    assert found.shape == (2, 25, 3) and not found.any()


def test_white_outside_of_the_mask():
    mask = torch.zeros(40, 40)
    mask[10:30, 10:30] = 255
    mask[15:25, 15:25] = 0
    found = on_white(torch.zeros(40, 40, 3, dtype=torch.uint8), mask)
    assert found.shape == (20, 20, 3) and (found[8:12, 8:12] == 255).all() and not found[:3, :3].any()
