"""Add Reference and its picture: chains, masks of all shapes, and what it refuses."""

import math

import pytest
import torch
from support.devices import two_cards, with_cards
from support.models import execute

from pack.nodes.host import messages
from pack.nodes.references import reference_views as pictures
from pack.nodes.references.reference_views import fitted_picture as fitted
from pack.nodes.references.reference_views import region_of, views_of
from pack.nodes.references.references_node import AddReference, ReferencePreview

AREA = 512 * 512


def reference(image=None, **inputs):
    return execute(AddReference, image=torch.rand(1, 64, 96, 3) if image is None else image, **inputs)[0]


def test_a_chain_keeps_its_order_and_the_chains_it_came_from():
    first = reference(word="dog ")
    second = reference(word="hat", references=first)
    assert [r.word for r in second] == ["dog", "hat"] and len(first) == 1
    assert isinstance(second, tuple)


@pytest.mark.parametrize("strength", [math.nan, math.inf, -1.0])
def test_strengths_that_cannot_be(strength):
    with pytest.raises(ValueError, match="strength is .*; enter a number"):
        reference(strength=strength)


@pytest.mark.parametrize("shape", [(64, 96), (1, 64, 96), (1, 1, 64, 96), (1, 64, 96, 1)])
def test_masks_of_all_shapes(shape):
    (view,) = views_of(reference(mask=torch.rand(shape)), AREA)
    assert view.mask.shape == (64, 96)


def test_pictures_with_alpha_or_grey():
    for channels in (1, 4):
        (view,) = views_of(reference(torch.rand(1, 64, 96, channels)), AREA)
        assert view.pixels.shape == (1, 64, 96, 3)
    (view,) = views_of(reference(torch.rand(64, 96, 3)), AREA)
    assert view.pixels.shape == (1, 64, 96, 3)


def test_a_batch_is_several_pictures():
    pictures_ = torch.rand(3, 64, 96, 3)
    views = views_of(reference(pictures_, mask=torch.ones(1, 64, 96)), AREA)
    assert [torch.equal(v.pixels[0], p) for v, p in zip(views, pictures_, strict=True)] == [True] * 3
    masks = torch.rand(3, 64, 96)
    views = views_of(reference(pictures_, mask=masks), AREA)
    assert [torch.equal(v.mask, mask) for v, mask in zip(views, masks, strict=True)] == [True] * 3


@pytest.mark.parametrize("kind", ["mask", "region"])
def test_a_wrong_count_names_both(kind):
    with pytest.raises(ValueError, match=f'reference 1 \\("dog"\\) has 3 pictures but 2 {kind}s'):
        views_of(reference(torch.rand(3, 64, 96, 3), word="dog", **{kind: torch.ones(2, 64, 96)}), AREA)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": torch.rand(1, 4, 96, 3)}, "96x4 pixels"),
        ({"image": torch.rand(1, 64, 96, 2)}, r"shape \(1, 64, 96, 2\)"),
        ({"image": torch.full((1, 64, 96, 3), math.nan)}, "NaN or infinite"),
        ({"mask": torch.full((1, 64, 96), math.nan)}, "mask of reference 1 has NaN or infinite values"),
        ({"mask": torch.rand(1, 2, 64, 96, 1)}, "connect a MASK"),
    ],
    ids=["tiny", "channels", "NaN picture", "NaN mask", "shape of a mask"],
)
def test_pictures_that_cannot_be(inputs, says):
    with pytest.raises(ValueError, match=says):
        views_of(reference(**inputs), AREA)


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("size", [(64, 64), (64, 96), (7, 1000)])
def test_a_mask_of_one_value_is_no_mask(monkeypatch, size, value):
    """The host gives such ones for pictures without transparency; a black one that was painted looks the same."""
    told = []
    monkeypatch.setattr(pictures, "warn_user", told.append)
    (view,) = views_of(reference(mask=torch.full((1, *size), value)), AREA)
    assert view.mask is None and "without transparency or one painted black all over" in told[0]


def test_one_lighter_pixel_makes_a_mask(monkeypatch):
    told = []
    monkeypatch.setattr(pictures, "warn_user", told.append)
    mask = torch.zeros(1, 64, 64)
    mask[:, 3, 3] = 1 / 255
    (view,) = views_of(reference(mask=mask), AREA)
    assert torch.equal(view.mask, mask[0]) and not told


def test_masks_of_a_batch_are_looked_at_one_by_one(monkeypatch):
    told = []
    monkeypatch.setattr(pictures, "warn_user", told.append)
    masks = torch.zeros(2, 64, 96)
    masks[1, :, :48] = 1
    views = views_of(reference(image=torch.rand(2, 64, 96, 3), mask=masks), AREA)
    assert [view.mask is None for view in views] == [True, False] and len(told) == 1


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((512, 512), (512, 512)),
        ((300, 451), (296, 448)),
        ((1024, 1024), (512, 512)),
        ((2000, 1000), (720, 360)),
        ((9, 4000), (8, 4000)),
        ((20, 40000), (8, 22896)),
    ],
)
def test_pictures_are_shrunk_to_the_area_and_cropped_to_8(size, fits):
    pixels, frame = fitted(torch.rand(*size, 3), AREA)
    assert pixels.shape == (1, *fits, 3)
    top, left, bottom, right = frame
    assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
    assert abs((top + bottom) / 2 - 0.5) < 0.5 * 8 / min(size) and fits[0] % 8 == fits[1] % 8 == 0


def test_the_region_of_several_is_where_any_may_act():
    regions = torch.zeros(2, 8, 8)
    regions[0, :4], regions[1, 2:6] = 1, 0.5
    (both,) = reference(torch.rand(2, 64, 96, 3), region=regions)
    expected = torch.tensor([1.0, 1, 1, 1, 0.5, 0.5, 0, 0])[:, None].expand(8, 8)
    assert torch.equal(region_of(both, "reference 1"), expected)
    assert region_of(reference()[0], "reference 1") is None


def test_a_region_that_is_black_all_over_is_no_region(monkeypatch):
    """The host gives such a mask for pictures without transparency; it must not switch the reference off."""
    told = []
    monkeypatch.setattr(pictures, "warn_user", told.append)
    (black,) = reference(region=torch.zeros(1, 64, 64))
    assert region_of(black, "reference 1") is None
    (view,) = views_of((black,), AREA)
    assert view.region is None
    assert len(told) == 2 and all("reference 1: its region is black all over" in one for one in told)


def test_regions_of_a_batch_are_looked_at_one_by_one():
    regions = torch.zeros(2, 8, 8)
    regions[1, :4] = 0.5
    (both,) = reference(torch.rand(2, 64, 96, 3), region=regions)
    first, second = views_of((both,), AREA)
    assert first.region is None and torch.equal(second.region, regions[1])
    # where any may act
    assert region_of(both, "reference 1") is None


def test_the_frame_is_what_is_left_of_the_picture():
    """Its edges, in pixels of the picture, are those of the crop; of an enlarged or shrunk one in equal parts."""
    image = torch.rand(300, 451, 3)
    pixels, frame = fitted(image, AREA)
    assert torch.equal(pixels[0], image[2:298, 1:449])
    assert frame == pytest.approx((2 / 300, 1 / 451, 298 / 300, 449 / 451))
    _, shrunk = fitted(torch.rand(2000, 1000, 3), AREA)
    # 2000 x 1000 becomes 724 x 362, of which 720 x 360 are left
    assert shrunk == pytest.approx((2 / 724, 1 / 362, 722 / 724, 361 / 362))


def test_a_small_picture_is_never_touched():
    image = torch.rand(48, 40, 3)
    pixels, frame = fitted(image, AREA)
    assert torch.equal(pixels[0], image) and frame == (0.0, 0.0, 1.0, 1.0)


def test_the_preview_shows_a_row_per_picture():
    mask = torch.zeros(1, 512, 512)
    mask[:, 200:300, 100:400] = 1
    chain = reference(torch.ones(1, 512, 512, 3), word="box", mask=mask)
    chain = reference(torch.rand(2, 64, 200, 3), references=chain)
    (sheet,) = execute(ReferencePreview, references=chain)
    assert sheet.shape[0] == 3 and sheet.shape[3] == 3 and sheet.min() >= 0 and sheet.max() <= 1
    height, width = 256, sheet.shape[2]
    for left in range(0, width, width // 4 + 2):
        panel = sheet[0, :height, left : left + 256]
        assert panel[125, 128].min() > 0.9 and panel[10, 10].max() < 0.3


def test_a_vanished_mask_is_seen():
    thin = torch.zeros(1, 512, 512)
    thin[:, 3, :] = 1
    (sheet,) = execute(ReferencePreview, references=reference(torch.rand(1, 512, 512, 3), mask=thin))
    red = (sheet[0, 256:, :, 0] - sheet[0, 256:, :, 1]) > 0.4
    assert red.any() and not red[:, :250].any()


@with_cards
def test_pictures_and_masks_on_a_card_are_shown(monkeypatch):
    """As --gpu-only hands them out."""
    image, mask, region = torch.rand(1, 64, 96, 3), torch.rand(1, 64, 96), torch.rand(1, 8, 12)
    (expected,) = execute(ReferencePreview, references=reference(image, mask=mask, region=region))
    with two_cards(monkeypatch) as cards:
        chain = reference(image.to(cards[0]), mask=mask.to(cards[0]), region=region.to(cards[0]))
        (sheet,) = execute(ReferencePreview, references=chain)
        (view,) = views_of(chain, AREA)
        assert {t.device.type for t in (view.pixels, view.mask, view.region, sheet)} == {"cpu"}
    assert torch.equal(sheet, expected)


def test_words_reach_the_node_only_on_a_server():
    assert isinstance(messages.input_error("a sentence"), ValueError)
