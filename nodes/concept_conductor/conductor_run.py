"""What lives for one sampling run of Concept Conductor."""

from contextlib import contextmanager

from ...kernels.kmeans import kmeans
from ..host.blocks import grid_at
from ..host.calls import bare_forward
from ..host.rows import COND
from .concept_masks import ConceptMasks
from .concept_paths import PathTexts
from .layout_steps import LayoutGuidance


class Conducting:
    """What lives for one run."""

    def __init__(self, technique, run, masks, grids):
        """technique: the Conductor; masks (N, h, w) bool at the latent's size; grids: those of all layers."""
        self.settings, self.layers = technique.settings, technique.layers
        self.paths, self.own, self.adapters = technique.paths, technique.own, technique.adapters
        self.masks = ConceptMasks(masks, grids, self.settings.close_seams)
        self.texts = None
        self.guidance = None
        self._number = {path: number for number, path in enumerate(technique.shared, 1)}
        self._latent_size = run.latent_size
        # {path: {key: weight}} of the concepts that run with weights of their own; the next run may have others below
        self._own_weights = {path: {} for path in self.own}
        self._layout, self._inversion = technique.layout, None
        self._base = self._schedule = None
        if technique.layout is not None and self.settings.guidance_weight:
            self.guidance = LayoutGuidance(self, self.settings, technique.layout.text)

    def prepare(self, base, schedule):
        """Called once the model that runs is known, with the run's noise levels."""
        if self.texts is None:
            self._base, self._schedule = base, schedule
            self.texts = PathTexts(base, self.paths, self._latent_size)

    def layout_latent(self, step, timestep):
        """The layout picture at a step (a number) of the run, in the UNet's units: (1, C, h, w)."""
        if self._inversion is None:
            self._inversion = self._layout.inversion(self._base, self._latent_size, self._schedule)
        return self._inversion.at(timestep)

    def cluster(self, rows, k):
        """The label (n,) of each row (n, d) in one of k clusters."""
        return kmeans(rows, k, self.settings.kmeans_restarts)

    def grid_of(self, block):
        """(h, w) of a block's tokens."""
        return grid_at(self.layers.levels[block], self._latent_size)

    def path_of_rows(self, paths, rows):
        """The number of the adapters of each row; None is the base."""
        return [self._number[path] if path is not None else 0 for path in paths for _ in range(rows)]

    @contextmanager
    def weights(self, paths, rows, base):
        """The UNet of the host's model `base` for a batch of `rows` rows of each of some paths; None is the base.

        A function (x, timesteps, context, y, control, options) -> eps.
        """
        own = [path for path in paths if path in self.own]
        if own:
            yield self.own[own[0]].forward(self._own_weights[own[0]])
        else:
            with self.adapters.active(base.diffusion_model, self.path_of_rows(paths, rows)):
                yield bare_forward(base)

    def refines(self, call):
        """Whether the maps of this call are to be looked at: once in each step of the schedule that is due."""
        settings, schedule = self.settings, call.run.schedule({})
        steps = max(1, len(schedule) - 1) if schedule else 1
        interval = max(1, round(settings.refine_interval * steps))
        step = call.moment.step
        inside = settings.refine_start * steps - 1e-6 <= step <= settings.refine_end * steps + 1e-6
        cond = any(chunk.role == COND for chunk in call.chunks)
        return inside and not step % interval and cond and not self.masks.refined_at(step)

    def refine(self, step, grid, maps):
        """maps: {None (the base) or path: (images, n, n)} of this step, whose n tokens stand on a grid (h, w)."""
        per_concept = {concept: maps[path] for path in self.paths for concept in path.concepts}
        self.masks.refine(
            step,
            grid,
            maps[None],
            [per_concept[concept] for concept in range(self.masks.count)],
            self.cluster,
            self.settings.iou_threshold,
            self.settings.rect_mask,
            self.settings.unmatched == "keep",
        )
