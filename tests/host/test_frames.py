"""Which part of the result an attention's rows show, and that nobody guesses where it cannot be told."""

from types import SimpleNamespace

import comfy.patcher_extension
import pytest
import torch
from support.compare import differ
from support.image_prompts import with_pictures
from support.models import tiny_model
from support.references import half_mask, picture, references, with_references

from pack.nodes.host.frames import frame_of
from pack.nodes.host.rows import Chunk


def frame(shown, whole, area=None, rows=2, tokens=None):
    """The frame at a block of half the size."""
    grid = shown[0] // 2, shown[1] // 2
    options = {"activations_shape": [rows, 8, *grid], "original_shape": [rows, 4, *shown]}
    q = torch.zeros(rows, grid[0] * grid[1] if tokens is None else tokens, 8)
    return frame_of(q, options, Chunk(0, 2, "cond", area=area), SimpleNamespace(latent_size=whole))


def test_the_whole_picture():
    assert frame((8, 12), (8, 12)) == (0.0, 0.0, 1.0, 1.0)
    # outside a sampler nothing else can be meant
    assert frame((8, 12), None) == (0.0, 0.0, 1.0, 1.0)


def test_an_area_is_a_part_of_it():
    assert frame((4, 8), (8, 16), area=(4, 8, 2, 6)) == (0.25, 0.375, 0.75, 0.875)


def test_nobody_guesses():
    """A part of which nobody said where it lies, an area of other axes, tiles, merged tokens."""
    assert frame((4, 8), (8, 16)) is None
    assert frame((4, 8), (8, 16), area=(1, 4, 8, 0, 2, 6)) is None
    assert frame((8, 16), (8, 16), rows=4) is None
    assert frame((8, 16), (8, 16), tokens=16) is None


def in_crops(model):
    """The MODEL with another pack's wrapper, which runs the left and the right half of the picture by themselves."""

    def halves(executor, x, *args, **kwargs):
        return torch.cat([executor(half, *args, **kwargs) for half in x.chunk(2, -1)], -1)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "crops", halves)
    return clone


@pytest.mark.parametrize("patch", ["MRSA", "MIP-Adapter"])
def test_regions_are_off_in_crops(patch, caplog):
    model = tiny_model("sd15")
    left = half_mask()

    def patched(regions):
        if patch == "MRSA":
            return with_references(model, references(2, region=regions))
        return with_pictures(model, regions=regions)

    size = {"latent": (1, 4, 8, 16), "steps": 1}
    free = picture(in_crops(patched([None, None])), **size)
    assert not caplog.text
    parted = picture(in_crops(patched([left, 1 - left])), **size)
    assert "samples an unknown part of it" in caplog.text
    assert differ(parted, free) < 1e-5
    # where the picture is whole, regions count
    assert differ(picture(patched([left, 1 - left]), **size), picture(patched([None, None]), **size)) > 1e-3
