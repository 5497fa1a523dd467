"""Sample Picture."""

import pytest
from support.models import execute

from pack.nodes.samples_node import PICTURES, POCKET_PICTURES, SamplePicture


@pytest.mark.parametrize("picture", PICTURES + POCKET_PICTURES)
def test_picture_and_mask_fit(picture):
    image, mask = execute(SamplePicture, picture=picture)
    assert image.shape == (*mask.shape, 3) and image.std() > 0.1
    assert set(mask.unique().tolist()) == {0.0, 1.0} and 0.01 < mask.mean() < 0.9
