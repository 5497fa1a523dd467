"""A face turned and scaled to where recognition networks expect its five points (ArcFace, arXiv 1801.07698)."""

import torch
import torch.nn.functional as F

# Where the eyes, the nose and the corners of the mouth lie in a crop of 112 pixels.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def template(size):
    """The five points (5, 2) of a crop of so many pixels: the 112 ones scaled, or those of 128 with their margin."""
    points = torch.tensor(TEMPLATE, dtype=torch.float64)
    if size % 112 == 0:
        return points * (size / 112)
    return points * (size / 128) + torch.tensor([8 * size / 128, 0.0], dtype=torch.float64)


def similarity(points, target):
    """The matrix (2, 3) that turns, scales and shifts points (p, 2) onto a target (p, 2) by least squares.

    R = U diag(1, sign det(U V')) V' with U S V' = svd(sum of d s') of the centred points, c = sum of S / sum of |s|^2,
    t = mean d - c R mean s (Umeyama 1991). In double precision.
    """
    points, target = points.double(), target.double()
    from_centre, to_centre = points - points.mean(0), target - target.mean(0)
    u, singular, v = torch.linalg.svd(to_centre.mT @ from_centre)
    signs = torch.stack([torch.ones(()).double(), torch.linalg.det(u @ v).sign()])
    scale = (singular * signs).sum() / from_centre.square().sum().clamp(min=1e-12)
    turn = scale * (u * signs) @ v
    return torch.cat([turn, (target.mean(0) - turn @ points.mean(0))[:, None]], 1)


def aligned(picture, matrix, size):
    """The crop (size, size, 3) whose pixel p shows the picture (H, W, 3) at M^-1 p; bilinear, black outside it.

    matrix M (2, 3) maps points (x, y) of the picture to the crop, both counted from the middle of the first pixel.
    """
    turn, shift = matrix[:, :2].double(), matrix[:, 2].double()
    axis = torch.arange(size, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    points = (points - shift) @ torch.linalg.pinv(turn).mT
    sides = torch.tensor(picture.shape[1::-1], dtype=torch.float64)
    # grid_sample counts from -1 to 1 across whole pixels
    points = ((2 * points + 1) / sides - 1).float()
    shown = picture.float().movedim(-1, 0)[None]
    return F.grid_sample(shown, points[None], "bilinear", "zeros", align_corners=False)[0].movedim(0, -1)
