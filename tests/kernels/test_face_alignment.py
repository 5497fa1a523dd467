"""Faces turned to the template, against the matrices and crops of the published package on a real face."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.face_alignment import TEMPLATE, aligned, similarity, template


@pytest.mark.parametrize("size", [112, 128, 224, 256])
def test_matrices_of_the_published_package(size):
    golden, _ = case("faceid/align")
    found = similarity(golden["keypoints"][0], template(size))
    assert (found - golden[f"matrix/{size}"]).abs().max() < 1e-4


@pytest.mark.parametrize("size", [112, 128])
def test_crops_of_the_published_package(size):
    golden, _ = case("faceid/align")
    found = aligned(golden["picture"], golden[f"matrix/{size}"], size).round()
    apart = (found - golden[f"crop/{size}"].float()).abs()
    assert apart.mean() < 0.5 and apart.max() <= 3


def test_a_turned_and_scaled_template_is_turned_back():
    angle, scale, shift = torch.tensor(0.7), 3.5, torch.tensor([40.0, -12.0]).double()
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]).double()
    points = torch.tensor(TEMPLATE).double() @ (scale * turn).mT + shift
    matrix = similarity(points, template(224))
    torch.testing.assert_close(points @ matrix[:, :2].mT + matrix[:, 2], template(224), rtol=0, atol=1e-5)
    # turned and scaled, not mirrored
    assert torch.linalg.det(matrix[:, :2]) > 0


def test_a_mirrored_face_is_not_mirrored_back():
    points = torch.tensor(TEMPLATE).double() * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity(points, template(112))[:, :2]) > 0


def test_a_crop_is_the_picture_where_the_matrix_says():
    """Against a loop over pixels: bilinear between the four around the point, black outside the picture."""
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(9, 7, 3, generator=generator)
    matrix = torch.tensor([[1.3, -0.4, 1.5], [0.4, 1.3, -2.0]]).double()
    inverse = torch.linalg.inv(matrix[:, :2])
    expected = torch.zeros(12, 12, 3)
    for row in range(12):
        for column in range(12):
            x, y = (inverse @ (torch.tensor([column, row]).double() - matrix[:, 2])).tolist()
            left, top = int(x // 1), int(y // 1)
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                if 0 <= i < 9 and 0 <= j < 7:
                    expected[row, column] += (1 - abs(y - i)) * (1 - abs(x - j)) * picture[i, j]
    torch.testing.assert_close(aligned(picture, matrix, 12), expected, rtol=0, atol=1e-5)


def test_points_in_one_place_make_no_error():
    matrix = similarity(torch.full((5, 2), 20.0), template(112))
    assert torch.isfinite(aligned(torch.rand(40, 40, 3), matrix, 112)).all()
