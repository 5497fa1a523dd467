"""Box Mask."""

import math

import pytest
import torch
from support.models import execute

from pack.nodes.masks.box_mask_node import BoxMask


def test_a_half():
    (mask,) = execute(BoxMask, x=0.5, width=0.5, pixel_width=7, pixel_height=3)
    assert mask.shape == (1, 3, 7) and mask.dtype == torch.float32
    assert mask[0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_what_lies_outside_is_cut_off():
    (mask,) = execute(BoxMask, x=0.75, y=0.75, width=1.0, height=1.0, pixel_width=8, pixel_height=8)
    assert mask.sum() == 4


@pytest.mark.parametrize("inputs", [{"width": 0.0}, {"x": 1.0}, {"height": 0.0, "feather": 0.2}])
def test_an_empty_box_is_refused(inputs):
    with pytest.raises(ValueError, match="covers no pixel"):
        execute(BoxMask, **inputs)


def test_not_a_number_is_refused():
    with pytest.raises(ValueError, match="x is nan"):
        execute(BoxMask, x=math.nan)
