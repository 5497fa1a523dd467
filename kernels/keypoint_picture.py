"""Five points of a face as the picture that IdentityNet reads (InstantID, arXiv 2401.07519, `draw_kps` of its code)."""

import math

import torch

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
NOSE, LIMBS = 2, (0, 1, 3, 4)
# Half the width of a limb and the radius of a point in pixels, whatever the size of the picture; limbs are dimmed.
ACROSS, RADIUS, DIMMED = 4, 10, 0.6


def keypoint_picture(faces, size):
    """uint8 (H, W, 3): four limbs from the nose (2) of each face (5, 2) to its other points, and five discs on them.

    Points (x, y) are in pixels and may lie outside. Limbs are ellipses as polygons of whole points, as OpenCV fills
    them: the published pictures are met to the last pixel. Face after face, later ones over earlier ones.
    """
    picture = torch.zeros(*size, 3, dtype=torch.uint8)
    for points in faces:
        alone = _limbs(points.double(), size)
        _draw_points(alone, points.double())
        picture = torch.where((alone > 0).any(-1, keepdim=True), alone, picture)
    return picture


def _limbs(points, size):
    picture = torch.zeros(*size, 3, dtype=torch.uint8)
    for i in LIMBS:
        middle = (points[i] + points[NOSE]) / 2
        x, y = (points[i] - points[NOSE]).tolist()
        centre = tuple(int(one) for one in middle.tolist())
        outline = _ellipse(centre, (int(math.hypot(x, y) / 2), ACROSS), int(math.degrees(math.atan2(y, x))))
        colour = torch.tensor(COLOURS[i], dtype=torch.float32).mul(DIMMED).byte()
        for row, (first, last) in _rows(outline, size[0]).items():
            picture[row, max(first, 0) : max(last + 1, 0)] = colour
    return picture


def _draw_points(picture, points):
    height, width = picture.shape[:2]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    for colour, (x, y) in zip(COLOURS, points.tolist(), strict=True):
        disc = (columns - int(x)) ** 2 + (rows - int(y)) ** 2 <= RADIUS**2
        picture[disc] = torch.tensor(colour, dtype=torch.uint8)


def _ellipse(centre, axes, degrees):
    """Whole points (x, y) of an ellipse, one per degree, without repetitions."""
    along, aside = _sine(90 + degrees), _sine(degrees)
    found = []
    for angle in range(361):
        x, y = axes[0] * _sine(90 + angle), axes[1] * _sine(angle)
        point = round(centre[0] + x * along - y * aside), round(centre[1] + x * aside + y * along)
        if not found or found[-1] != point:
            found.append(point)
    return found


def _sine(degrees):
    # OpenCV reads a table of seven digits
    return round(math.sin(math.radians(degrees)), 7)


def _rows(outline, height):
    """{row: (first, last column)} of a convex polygon, its edges drawn pixel by pixel."""
    rows = {}
    for start, end in zip(outline, [*outline[1:], outline[0]], strict=True):
        for x, y in _edge(start, end):
            if 0 <= y < height:
                first, last = rows.get(y, (x, x))
                rows[y] = min(first, x), max(last, x)
    return rows


def _edge(start, end):
    """The pixels from one point to another: the longer side in single steps, the other by Bresenham's rule."""
    steps = [(1 if b >= a else -1, abs(b - a)) for a, b in zip(start, end, strict=True)]
    long = 0 if steps[0][1] >= steps[1][1] else 1
    (far, length), (near, width) = steps[long], steps[1 - long]
    point, error = list(start), length - 2 * width
    for _ in range(length + 1):
        yield point
        if error < 0:
            error += 2 * length
            point[1 - long] += near
        error -= 2 * width
        point[long] += far
