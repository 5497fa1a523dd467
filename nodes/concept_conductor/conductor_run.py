"""What lives for one sampling run of Concept Conductor."""

from contextlib import contextmanager

import torch

from ...kernels.kmeans import kmeans
from ..host.blocks import grid_at
from ..host.calls import forward_of, live_unet
from ..host.content_keys import weights_key
from ..host.progress import SHARE_ROUNDING
from ..host.rows import COND, place_of
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
        self._run = run
        # {key of the weights in force: Inversion}, since LoRAs may hang on prompts that follow each other
        self._layout, self._inversions = technique.layout, {}
        self._base = self._device = self._schedule = None
        # of the evaluation that is going on, in the order in which they came:
        # [(place of the prompt among the guider's, numbers of pictures, maps), ...]
        self._maps = []
        if technique.layout is not None and self.settings.guidance_weight:
            self.guidance = LayoutGuidance(self, self.settings, technique.layout.text)

    def prepare(self, at):
        """Called once the model that runs is known; at: a Step or a Call of the run."""
        if self.texts is None:
            self._base, self._device = at.base, at.x.device
            progress = at.run.progress(at.base.model_sampling)
            self._schedule = progress.completed(at.run.schedule({}) or [at.moment.sigma])
            self.texts = PathTexts(at.base, self.paths, self._latent_size)

    def enter(self, step):
        """Before an evaluation: refined masks come into force with the first one of a later step."""
        self.masks.enter(step.moment.step)

    def leave(self, step):
        """After an evaluation: its maps are looked at, once in each step."""
        noted, self._maps = self._maps, []
        if noted and not self.masks.refined_at(step.moment.step):
            maps = _of_whole_batch(noted, len(step.x))
            if maps is not None:
                self.refine(step.moment.step, self.grid_of(self.layers.shapes), maps)

    def note(self, chunk, pictures, maps):
        """Keeps the maps (as in `refine`, on the grid of their layer) of a chunk's rows, which show the pictures of
        these numbers, until the evaluation ends; called in any thread.
        """
        self._maps.append((place_of(chunk, self._run.conds()), pictures, maps))

    def layout_latent(self, step, timestep):
        """The layout picture at a step (a number) of the run, in the UNet's units: (1, C, h, w)."""
        key = weights_key(self._base.current_patcher)
        if key not in self._inversions:
            made = self._layout.inversion(self._base, self._latent_size, self._schedule, self._device)
            self._inversions[key] = made
        return self._inversions[key].at(timestep)

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
    def weights(self, paths, rows, base, prepared=lambda unet: unet):
        """The UNet of the host's model `base` for a batch of `rows` rows of each of some paths; None is the base.

        A function (x, timesteps, context, y, control, options) -> eps.
        """
        own = [path for path in paths if path in self.own]
        if own:
            # {path: {key: weight}}: computed once a run, since the next one may have other weights below
            computed = self._run.state("own weights", lambda: {path: {} for path in self.own}, base)
            yield forward_of(prepared(self.own[own[0]].unet(base, computed[own[0]])))
        else:
            path_of_rows = self.path_of_rows(paths, rows)
            unet = prepared(live_unet(base))
            with self.adapters.active(unet, path_of_rows, base.current_patcher):
                yield forward_of(unet)

    def refines(self, call):
        """Whether the maps of this call are to be looked at: once in each step of the schedule that is due."""
        settings, step = self.settings, call.moment.step
        progress = call.run.progress(call.base.model_sampling)
        done = progress.at(step / progress.steps)
        inside = settings.refine_start - SHARE_ROUNDING <= done <= settings.refine_end + SHARE_ROUNDING
        due = inside and not (progress.before + step) % max(1, round(settings.refine_interval * progress.total))
        return due and any(chunk.role == COND for chunk in call.chunks) and not self.masks.refined_at(step)

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


def _of_whole_batch(noted, many):
    """The maps of all `many` pictures, of the first prompt whose maps were noted; None where some are missing."""
    first = min(place for place, _, _ in noted)
    rows = {}
    for place, pictures, maps in noted:
        for row, picture in enumerate(pictures) if place == first else ():
            # of several the first to come: another patch may run a prompt again, and windows overlap
            rows.setdefault(picture, (maps, row))
    if set(rows) != set(range(many)):
        return None
    owners = rows[0][0].keys()
    return {owner: torch.stack([maps[owner][row] for maps, row in map(rows.get, range(many))]) for owner in owners}
