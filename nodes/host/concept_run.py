"""What lives for one sampling run of Concept Conductor."""

from contextlib import contextmanager
from contextvars import ContextVar

from .blocks import grid_at
from .concept_masks import ConceptMasks
from .concept_rows import Texts
from .layout_guidance import LayoutGuidance
from .rows import COND

# What the seams of concept_conductor.py serve: the inversion of the run that asks, the restarts that the user chose.
INVERSION = ContextVar("the layout picture of the run that asks")
RESTARTS = ContextVar("restarts of k-means", default=100)


class Conducting:
    """What lives for one run."""

    def __init__(self, technique, run, masks, grids, layout_latent, cluster):
        """technique: the ConceptConductor; masks (N, h, w) bool at the latent's size; grids: those of all layers;
        layout_latent(step, timestep) and cluster(rows, k): the seams of concept_conductor.py.
        """
        self.settings, self.layers = technique.settings, technique.layers
        self.paths, self.own, self.adapters = technique.paths, technique.own, technique.adapters
        self._number = {path: number for number, path in enumerate(technique.shared, 1)}
        self._latent_size = run.latent_size
        self.masks = ConceptMasks(masks, grids, self.settings.close_seams)
        self.texts = None
        self.guidance = None
        self._cluster = cluster
        self._layout, self._inversion = technique.layout, None
        if technique.layout is not None and self.settings.guidance_weight:
            self.guidance = LayoutGuidance(self, self.settings, layout_latent, technique.layout.text)

    def prepare(self, base):
        """Called once the model that runs is known."""
        if self.texts is None:
            self.texts = Texts(base, self.paths, self._latent_size)

    def grid_of(self, block):
        """(h, w) of a block's tokens."""
        return grid_at(self.layers.levels[block], self._latent_size)

    @contextmanager
    def seams(self, step):
        """Inside, `layout_latent` serves this run."""

        def inversion():
            if self._inversion is None:
                schedule = step.run.schedule({}) or [step.moment.sigma]
                self._inversion = self._layout.inversion(step.base, self._latent_size, schedule, self.layers)
            return self._inversion

        token = INVERSION.set(inversion)
        try:
            yield
        finally:
            INVERSION.reset(token)

    def path_of_rows(self, paths, rows):
        """The number of the adapters of each row; None is the base."""
        return [self._number[path] if path is not None else 0 for path in paths for _ in range(rows)]

    @contextmanager
    def weights(self, paths, rows, base):
        """The UNet of the host's model `base` for a batch of `rows` rows of each of some paths; None is the base.

        A function (x, timesteps, context, y, control, options) -> eps.
        """
        unet = base.diffusion_model
        own = [self.own[path] for path in paths if path in self.own]
        if own:
            with own[0].active() as forward:
                yield forward
        else:
            with self.adapters.active(unet, self.path_of_rows(paths, rows)):
                yield unet._forward

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
        """maps: {None (the base) or path: (images, n, n)} of this step, on a grid."""
        token = RESTARTS.set(self.settings.kmeans_restarts)
        try:
            per_concept = {concept: maps[path] for path in self.paths for concept in path.concepts}
            self.masks.refine(
                step,
                grid,
                maps[None],
                [per_concept[concept] for concept in range(self.masks.count)],
                self._cluster,
                self.settings.iou_threshold,
                self.settings.rect_mask,
                self.settings.unmatched == "keep",
            )
        finally:
            RESTARTS.reset(token)
