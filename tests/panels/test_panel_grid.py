"""Panel Grid and Panel Crop: tiles, masks, and the way back."""

import pytest
import torch
from support.golden_data import case
from support.models import execute

from pack.nodes.panels.panel_node import PanelCrop, PanelGrid

# the published order holds a sixth picture in the middle, which nobody sees
ORDER = (0, 1, 2, 3, 4, 6, 7, 8)


@pytest.fixture(scope="module")
def golden():
    return case("panels/grid")


def as_image(tensor):
    return tensor[None].float() / 255


def grid(images, **inputs):
    return execute(PanelGrid, images=images, **{"tile_width": 64, "tile_height": 48, **inputs})


def tile_at(canvas, row, column, size=(48, 64)):
    return canvas[0, row * size[0] : (row + 1) * size[0], column * size[1] : (column + 1) * size[1]]


@pytest.mark.parametrize("number", range(9))
def test_tiles_are_the_published_ones(golden, number):
    tensors, _ = golden
    canvas, _, _ = grid(as_image(tensors[f"image{number}"]))
    difference = (tile_at(canvas, 0, 1) * 255 - tensors[f"tile{number}"].float()).abs()
    assert difference.max() <= 3


def test_pictures_lie_where_the_published_code_puts_them(golden):
    tensors, params = golden
    canvas, mask, _ = grid(torch.cat([as_image(tensors[f"tile{number}"]) for number in ORDER]))
    for number in ORDER:
        left, top = params["positions_in_order_of_pasting"][number]
        alone, _, _ = grid(as_image(tensors[f"tile{number}"]))
        assert torch.equal(tile_at(canvas, top // 48, left // 64), tile_at(alone, 0, 0))
    assert torch.equal(mask[0] * 255, tensors["mask"].float())


def test_nothing_of_a_picture_is_lost_at_an_edge():
    """Widths whose scale is a fraction: no tile has an edge that no picture covers."""
    for width in range(65, 400, 7):
        canvas, _, _ = grid(torch.ones(1, 3 * width // 4, width, 3))
        assert tile_at(canvas, 0, 0).min() > 0.99


def test_fewer_pictures_repeat_in_turn():
    pictures = torch.stack([torch.full((48, 64, 3), value) for value in (0.2, 0.8)])
    canvas, _, _ = grid(pictures)
    seen = [float(tile_at(canvas, row, column).mean()) for row, column in ((0, 1), (0, 0), (0, 2), (1, 0), (2, 2))]
    assert seen == pytest.approx([0.2, 0.8, 0.2, 0.8, 0.8], abs=1e-6)
    assert torch.equal(tile_at(canvas, 1, 1), torch.full((48, 64, 3), 0.5))


def test_pinned_pictures_keep_their_places():
    pinned = torch.stack([torch.full((30, 50, 3), value) for value in (0.1, 0.3, 0.7, 0.9)])
    canvas, _, _ = grid(torch.zeros(1, 48, 64, 3), pinned=pinned)
    places = ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0))
    assert [round(float(tile_at(canvas, *place).mean()), 4) for place in places] == [0.1, 0.3, 0.7, 0.9, 0]


@pytest.mark.parametrize(
    ("layout", "size", "free"),
    [("3x3 middle", (144, 192), (1, 1)), ("2x2 last", (96, 128), (1, 1)), ("1x2 right", (48, 128), (0, 1))],
)
def test_the_crop_is_the_free_tile(layout, size, free):
    canvas, mask, panel = grid(torch.rand(3, 40, 40, 3), layout=layout)
    assert canvas.shape == (1, *size, 3) and mask.shape == (1, *size)
    assert tile_at(mask[..., None], *free).min() == 1 and mask.sum() == 48 * 64
    result = torch.rand(2, *size, 3)
    (tile,) = execute(PanelCrop, image=result, panel=panel)
    assert torch.equal(tile, torch.stack([tile_at(one[None], *free) for one in result]))
    # a result of twice the scale
    (tile,) = execute(PanelCrop, image=result.repeat_interleave(2, 1).repeat_interleave(2, 2), panel=panel)
    assert torch.equal(tile[:, ::2, ::2], torch.stack([tile_at(one[None], *free) for one in result]))


def test_the_published_crop(golden):
    tensors, _ = golden
    _, _, panel = grid(torch.zeros(1, 48, 64, 3))
    (tile,) = execute(PanelCrop, image=as_image(tensors["result"]), panel=panel)
    assert torch.equal(tile, as_image(tensors["result_centre"]))


def test_a_result_cut_at_its_edges():
    """The middle tile is that of the result: half a pixel goes to the even side."""
    _, _, panel = grid(torch.zeros(1, 48, 64, 3))
    result = torch.rand(1, 141, 189, 3)
    (tile,) = execute(PanelCrop, image=result, panel=panel)
    # 189 / 2 - 64 / 2 = 62.5, 141 / 2 - 48 / 2 = 46.5
    assert torch.equal(tile, result[:, 46:94, 62:126])


def test_odd_tiles_are_rounded_up(caplog):
    canvas, _, _ = grid(torch.rand(1, 20, 20, 3), tile_width=33, tile_height=40)
    assert canvas.shape == (1, 120, 120, 3)
    assert "tiles are made 40x40" in caplog.text


def test_more_pictures_than_places_are_said(caplog):
    grid(torch.rand(4, 20, 20, 3), layout="2x2 last")
    assert "images has 4 pictures, this layout has places for 3" in caplog.text


def test_bad_inputs():
    with pytest.raises(ValueError, match="images has no picture"):
        grid(torch.zeros(0, 8, 8, 3))
    with pytest.raises(ValueError, match='layout is "4x4"; choose one of'):
        grid(torch.zeros(1, 8, 8, 3), layout="4x4")
    _, _, panel = grid(torch.zeros(1, 48, 64, 3))
    with pytest.raises(ValueError, match="the picture is 400x100, the panel is 192x144"):
        execute(PanelCrop, image=torch.rand(1, 100, 400, 3), panel=panel)
    with pytest.raises(ValueError, match="panel is empty; connect the panel of Panel Grid"):
        execute(PanelCrop, image=torch.rand(1, 100, 400, 3), panel=None)
