"""Pictures and masks on a canvas: recorded placements of published code, and what holds for every one."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.placement import flipped, middle_mean, place_cropped, place_filling, place_person

GOLDEN, PARAMS = case("training/augment")


class Recorded:
    """The draws of a recorded case, in their order and within the limits that were asked for."""

    def __init__(self, draws):
        self.draws = list(draws)

    def share(self):
        kind, value = self.draws.pop(0)
        assert kind == "share"
        return value

    def integer(self, most):
        kind, least, highest, value = self.draws.pop(0)
        assert (kind, least, highest) == ("int", 0, most)
        return value


class Seeded:
    """Draws from a seed."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def share(self):
        return float(torch.rand(1, generator=self.generator))

    def integer(self, most):
        return int(torch.randint(most + 1, (1,), generator=self.generator))


@pytest.mark.parametrize("number", range(len(PARAMS["cases"])))
def test_recorded_placements(number):
    one = PARAMS["cases"][number]
    height, width = one["height"], one["width"]
    blocks = GOLDEN[f"{number}/blocks"].float() / 255
    for axis in (0, 1):
        blocks = blocks.repeat_interleave(one["block"], axis)
    pixels = blocks[:height, :width].movedim(-1, 0)
    top, bottom, left, right = one["mask"]
    masks = torch.zeros(1, height, width)
    masks[:, top:bottom, left:right] = 1
    draws = Recorded(one["draws"])
    placed = place_person(pixels, masks, PARAMS["size"], draws)
    assert not draws.draws
    top, bottom, left, right = one["placed"]
    assert placed.shown[top:bottom, left:right].all() and placed.shown.sum() == (bottom - top) * (right - left)
    levels = (255 * placed.pixels[:, 4::8, 4::8]).movedim(0, -1) - GOLDEN[f"{number}/picture"].float()
    assert levels.abs().max() < 0.01
    assert torch.equal(middle_mean(placed.masks)[0], GOLDEN[f"{number}/mask"])
    assert torch.equal(middle_mean(placed.shown), GOLDEN[f"{number}/image_mask"])


def picture(height, width):
    """A picture whose colours say where a pixel lies, and a mask of its left half."""
    rows, columns = torch.linspace(0.2, 1, height), torch.linspace(0.2, 1, width)
    pixels = torch.stack([rows[:, None].expand(-1, width), columns[None].expand(height, -1), torch.ones(height, width)])
    mask = torch.zeros(1, height, width)
    mask[..., : width // 2] = 1
    return pixels, mask


@pytest.mark.parametrize("way", [place_person, place_filling, place_cropped])
@pytest.mark.parametrize("size", [(90, 64), (64, 200), (64, 64), (300, 31)])
def test_masks_stay_with_their_picture(way, size):
    pixels, mask = picture(*size)
    for seed in range(6):
        placed = way(pixels, mask, 64, Seeded(seed))
        assert placed.pixels.shape == (3, 64, 64) and placed.masks.shape == (1, 64, 64)
        assert placed.original == size
        shown = placed.shown.bool()
        assert not placed.pixels[:, ~shown].any() and placed.pixels[2][shown].min() > 0.99
        # the green channel says from which column a pixel comes
        left = placed.pixels[1] < 0.2 + 0.8 * (size[1] // 2 - 0.5) / (size[1] - 1)
        wrong = ((left != placed.masks[0].bool()) & shown).sum(-1)
        assert wrong.max() <= 2


def test_filling_makes_pictures_smaller_and_crops_whole_ones():
    pixels, mask = picture(100, 64)
    sides = [place_filling(pixels, mask, 64, Seeded(seed)).shown.amax(0).sum() for seed in range(40)]
    assert min(sides) < 45 and max(sides) > 58 and max(sides) <= 64


def test_a_crop_says_what_it_took_off():
    pixels, mask = picture(64, 200)
    for seed in range(3):
        placed = place_cropped(pixels, mask, 64, Seeded(seed))
        top, left = placed.corner
        assert top == 0
        assert float(placed.pixels[1, 0, 0]) == pytest.approx(0.2 + 0.8 * left / 199, abs=1e-3)


def test_flips_take_the_masks_along():
    pixels, mask = picture(64, 64)
    placed = place_cropped(pixels, mask, 64, Seeded(0))
    turned = flipped(placed)
    assert torch.equal(turned.pixels, placed.pixels.flip(-1)) and torch.equal(turned.masks, placed.masks.flip(-1))


def test_edges_of_masks_on_the_latent_grid():
    mask = torch.zeros(16, 16)
    mask[:4, :12] = 1
    assert torch.equal(middle_mean(mask), torch.tensor([[0.5, 0.25], [0, 0]]))
