"""Where each concept stands, at the grid of every layer, and how that follows the picture while it is made."""

import torch

from ...kernels.mask_pyramid import coverage, grid_mask, without_seams
from ...kernels.mask_refinement import followed, merged
from ...kernels.masks import WHOLE
from ...kernels.picture_parts import part_in_frame
from ..host.latents import centre_crop, pixels_of


class ConceptMasks:
    """The masks of one run: per concept and image, zeros and ones on any grid. What comes out of `at` is never changed.

    Refined masks hold from the next step on: the evaluations of one step all see the same ones.
    """

    def __init__(self, latent_masks, grids, close_seams=False):
        """latent_masks (N, h, w) bool at the latent's size; grids: those of the layers, as (h, w)."""
        self.first = latent_masks.cpu()
        self.count = len(latent_masks)
        self._close_seams = close_seams
        # {grid: (N, 1 or images, h, w)}
        self._masks = {grid: self._built(grid) for grid in {*grids, tuple(latent_masks.shape[-2:])}}
        # the user's own, whatever refinement makes of them
        self._first = self._masks
        self._following = None
        self._step, self._moved = None, {}
        # what the attention maps of the concept and of the base last said, at the map's grid
        self._custom = self._base = None

    def enter(self, step):
        """Called with the step of each evaluation."""
        if self._following is not None and step > self._step:
            self._masks, self._following = self._following, None
            self._moved.clear()

    def refined_at(self, step):
        """Whether the maps of this step have been looked at already."""
        return self._step is not None and self._step >= step

    def at(self, grid, device):
        """(N, 1 or images, h * w) bool."""
        if (grid, device) not in self._moved:
            masks = self._masks.get(grid)
            # a grid that no plain UNet has: another patch has changed the size inside
            masks = grid_mask(self.current, grid) if masks is None else masks
            self._moved[grid, device] = masks.flatten(2).to(device)
        return self._moved[grid, device]

    def first_at(self, grid, device):
        """(N, 1, h * w) bool: the user's own masks, whatever refinement has made of them."""
        # a grid that no plain UNet has: another patch has changed the size inside
        masks = self._first[grid] if grid in self._first else self._built(grid)
        return masks.flatten(2).to(device)

    @property
    def current(self):
        """(N, 1 or images, h, w) at the latent's size."""
        return self._masks[tuple(self.first.shape[-2:])]

    @property
    def following(self):
        """The same as the next step will see them."""
        masks = self._masks if self._following is None else self._following
        return masks[tuple(self.first.shape[-2:])]

    @property
    def state(self):
        """What a run that goes on from this one's end needs: no tensor in it is changed any more."""
        return self._masks if self._following is None else self._following, self._custom, self._base

    def go_on(self, state):
        """Takes over the masks of a run with the same user's masks and pictures, before the first step."""
        self._masks, self._custom, self._base = state

    def refine(self, step, grid, base_map, custom_maps, cluster, threshold, rectangle=False, keep=False):
        """Looks at the maps of one step: base_map (images, n, n), custom_maps: one such per concept, at `grid`.

        cluster(rows, k): the labels (n,) of k clusters of a map's rows. Concepts that share a map share its labels.
        """
        if self._custom is None:
            images = len(base_map)
            self._custom = self._base = self._masks[grid].expand(-1, images, -1, -1)
        # `state` may have handed them on
        self._custom, self._base = self._custom.clone(), self._base.clone()
        # the N concepts and the background need at least N + 1 shapes; up to 2 N + 1, so that each may fall into two
        numbers = range(self.count + 1, 2 * self.count + 2)

        def labels(rows):
            return [] if rectangle else [cluster(rows, k).to("cpu").view(grid) for k in numbers]

        for image, base_rows in enumerate(base_map):
            of_base, of_map = labels(base_rows), {}
            for i, maps in enumerate(custom_maps):
                if id(maps) not in of_map:
                    of_map[id(maps)] = labels(maps[image])
                for masks, found in ((self._custom, of_map[id(maps)]), (self._base, of_base)):
                    masks[i, image] = followed(found, masks[i, image], threshold, rectangle, keep)
        self._following = {
            size: merged(self._custom, self._base, old, size, self._close_seams) for size, old in self._masks.items()
        }
        self._step = step

    def _built(self, grid):
        masks = grid_mask(self.first, grid)[:, None]
        if self._close_seams:
            masks = without_seams(coverage(self.first, grid)[:, None], masks)
        return masks


class MasksOfCall:
    """The masks for the rows of one call: those of its pictures, cut to the part that it shows."""

    def __init__(self, masks, pictures, frame):
        """pictures: their numbers, or None where nobody can tell: then the user's own masks serve; frame: as WHOLE."""
        self._masks, self._pictures, self._frame = masks, pictures, frame
        self._known = {}

    def at(self, grid, device):
        """(N, 1 or pictures, h * w) bool; each grid has several layers, and each layer two attentions."""
        if (grid, device) not in self._known:
            self._known[grid, device] = self._made(grid, device)
        return self._known[grid, device]

    def _made(self, grid, device):
        current = self._masks.current
        unknown = self._pictures is None and current.shape[1] > 1
        if self._frame != WHOLE:
            masks = self._masks.first[:, None] if unknown else current
            rows, columns = part_in_frame(self._frame, masks.shape[-2:])
            found = grid_mask(masks[..., rows, columns], grid).flatten(2).to(device)
        else:
            found = (self._masks.first_at if unknown else self._masks.at)(grid, device)
        return found if found.shape[1] == 1 else found[:, self._pictures]


def latent_masks(masks, latent_size, layout_size=None):
    """Masks of any sizes at the latent's: (N, h, w) bool.

    masks: N tensors (H, W) in 0..1. One of the layout picture's own size is cropped as that picture is, any other is
    stretched over the result, as boxes are.
    """
    picture = pixels_of(latent_size)
    found = []
    for mask in masks:
        if layout_size is not None and tuple(mask.shape) == tuple(layout_size):
            mask = mask[centre_crop(mask.shape, picture)]
        found.append(grid_mask(coverage(mask, picture), latent_size))
    return torch.stack(found)
