"""Concept Conductor (arXiv 2408.03632): several concepts, each with its own weights and prompt, in one picture.

At each call of the UNet the concepts' rows run beside the image's rows with their own adapters, and what their
attentions in the decoder give is blended into the image's rows where their masks are. In the first steps a gradient
moves the latent towards the layout of another picture; a few steps later the masks follow the shapes that show.
"""

import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from ...kernels.kmeans import kmeans
from .attach import Technique, attach, techniques_of
from .blocks import grid_at, unet_of
from .concept_masks import ConceptMasks, latent_masks
from .concept_passes import ConductedCall
from .concept_rows import Texts, paths_of
from .conductor_layers import layers_of
from .layout_guidance import LayoutGuidance
from .own_forward import OwnForward
from .row_adapters import RowAdapters
from .rows import COND
from .say import refusal, tell

NAME = "concept_conductor"
SPACES = ("vp", "sigma")
UNMATCHED = ("rectangle", "keep")
# What the seams below serve: the inversion of the run that asks, the restarts that the user chose.
_INVERSION = ContextVar("the layout picture of the run that asks")
_RESTARTS = ContextVar("restarts of k-means", default=100)


def layout_latent(step, timestep):
    """The layout picture at a step of the running sampler, in the UNet's units: (1, C, h, w)."""
    return _INVERSION.get()().at(timestep)


def cluster(rows, k):
    """The label (n,) of each row (n, d) in one of k clusters."""
    return kmeans(rows, k, _RESTARTS.get())


@dataclass(frozen=True)
class Settings:
    """The numbers of one Concept Conductor; limits are fractions of the steps of a run."""

    guidance_weight: float = 10.0
    guidance_end: float = 0.30
    guidance_interval: int = 1
    custom_factor: float = 1.0
    gradient_space: str = "vp"
    refine_start: float = 0.25
    refine_end: float = 0.40
    refine_interval: float = 0.025
    iou_threshold: float = 0.0
    kmeans_restarts: int = 100
    rect_mask: bool = False
    use_loss_mask: bool = False
    unmatched: str = "rectangle"
    close_seams: bool = False
    cache_bytes: int = 1 << 30


def attach_conductor(model, concepts, settings, layout=None):
    """The MODEL with the concepts in it; the MODEL itself where there are none.

    concepts: tuple of Concepts; layout: a LayoutPicture, or None for no guidance. Raises ValueError for inputs it cannot
    work with.
    """
    unet = unet_of(model, "Concept Conductor")
    _check(settings)
    concepts = tuple(concept for concept in concepts if concept.strength)
    if not concepts:
        return model
    if any(technique.name == NAME for technique in techniques_of(model)):
        raise refusal(
            "this model has a Concept Conductor already; chain all concepts with Add Concept and connect them to one"
        )
    missing = [number for number, concept in enumerate(concepts, 1) if concept.mask is None]
    if missing:
        raise refusal(
            f"{len(concepts)} concepts have {len(concepts) - len(missing)} masks (none at {_list(missing)}); connect a "
            "mask to each: painted, a Box Mask, or a Layout Mask from the layout picture"
        )
    for number, concept in enumerate(concepts, 1):
        if not concept.mask.any():
            raise refusal(f"the mask of {label_of(concept, number)} is empty; paint it white where the concept stands")
    layers = layers_of(unet)
    return attach(model, ConceptConductor(model, concepts, settings, layers, layout))


def label_of(concept, number):
    """How the user knows a concept."""
    return f'concept {number} ("{concept.word}")' if concept.word else f"concept {number}"


class Record:
    """What the last run did to the masks, on the CPU, for the node that shows them."""

    def __init__(self):
        self.start = self.end = None


class ConceptConductor(Technique):
    """The technique of one MODEL. Nothing of a run is kept in it, but the record that a node may show."""

    name = NAME

    def __init__(self, model, concepts, settings, layers, layout):
        self.concepts, self.settings, self.layers, self.layout = concepts, settings, layers, layout
        self.paths = paths_of(model, concepts)
        self.own = {path: OwnForward(model, path.deltas) for path in self.paths if path.deltas.needs_own_forward}
        self.shared = tuple(path for path in self.paths if path not in self.own)
        self.adapters = RowAdapters(model, [path.deltas for path in self.shared])
        self.record = Record()

    def joined_by(self, later):
        raise refusal("this model has a Concept Conductor already; chain all concepts and connect them to one")

    def models(self):
        return [*self.adapters.models(), *(one for own in self.own.values() for one in own.models())]

    def extra_rows(self, noise_shape):
        return len(self.paths) * noise_shape[0]

    def begin(self, run):
        for name, entries in run.conds().items():
            # an area in pixels or percent, or a mask whose bounds the host makes into one
            if any(entry.get("area") or entry.get("set_area_to_bounds") for entry in entries):
                raise refusal(
                    f"the {name} prompt has an area: Concept Conductor needs the whole picture; take areas off, the "
                    "concepts' masks take their place"
                )
        masks = self._masks(run.latent_size)
        grids = {grid_at(level, run.latent_size) for level in self.layers.levels.values()}
        self._tell_of_lost_cells(
            masks, {grid_at(self.layers.levels[key], run.latent_size) for key in self.layers.fused}
        )
        conducting = run.state(self.name, lambda: Conducting(self, run, masks, grids))
        self.record.start, self.record.end = conducting.masks.first, conducting.masks.latest
        if conducting.guidance is not None:
            # before the model is loaded: the VAE needs the memory for a moment
            self.layout.latent(run.guider.model_patcher.model, run.latent_size)

    def end(self, run):
        conducting = run.state(self.name, lambda: None)
        if conducting is not None:
            self.record.end = conducting.masks.last
        for own in self.own.values():
            own.forget()

    def shift(self, step):
        conducting = step.run.state(self.name, lambda: None)
        if conducting is None or conducting.guidance is None:
            return None
        conducting.prepare(step.base)
        with conducting.seams(step):
            return conducting.guidance.shift(step)

    def around(self, call, forward):
        conducting = call.run.state(self.name, lambda: None)
        if conducting is None:
            # nobody samples: some node looks at the UNet
            return forward
        if any(chunk.area is not None for chunk in call.chunks):
            raise refusal("a prompt has an area: Concept Conductor needs the whole picture; take areas off")
        conducting.prepare(call.base)
        return ConductedCall(conducting, call, forward)

    def _masks(self, latent_size):
        layout_size = tuple(self.layout.pixels.shape[1:3]) if self.layout else None
        masks = latent_masks([concept.mask for concept in self.concepts], latent_size, layout_size)
        for number, (concept, mask) in enumerate(zip(self.concepts, masks, strict=True), 1):
            if not mask.any():
                raise refusal(f"the mask of {label_of(concept, number)} covers no cell of the picture; draw it larger")
        return masks

    def _tell_of_lost_cells(self, masks, grids):
        built = ConceptMasks(masks, grids, self.settings.close_seams)
        for number, concept in enumerate(self.concepts, 1):
            cells = {grid: int(built.at(grid, torch.device("cpu"))[number - 1].sum()) for grid in sorted(grids)}
            if not all(cells.values()):
                counts = ", ".join(f"{count} on the {w}x{h} grid" for (h, w), count in cells.items())
                tell(
                    f"{label_of(concept, number)}: its mask is too small for some layers, which leave it out "
                    f"(cells: {counts}); draw it larger"
                )


class Conducting:
    """What lives for one run."""

    def __init__(self, technique, run, masks, grids):
        self.settings, self.layers = technique.settings, technique.layers
        self.paths, self.own, self.adapters = technique.paths, technique.own, technique.adapters
        self._number = {path: number for number, path in enumerate(technique.shared, 1)}
        self._latent_size = run.latent_size
        self.masks = ConceptMasks(masks, grids, self.settings.close_seams)
        self.texts = None
        self.guidance = None
        self._layout, self._inversion = technique.layout, None
        if technique.layout is not None and self.settings.guidance_weight:
            self.guidance = LayoutGuidance(
                self, self.settings, lambda *where: layout_latent(*where), technique.layout.text
            )

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

        token = _INVERSION.set(inversion)
        try:
            yield
        finally:
            _INVERSION.reset(token)

    def path_of_rows(self, paths, rows):
        """The number of the adapters of each row; None is the base."""
        return [self._number[path] if path is not None else 0 for path in paths for _ in range(rows)]

    @contextmanager
    def weights(self, paths, rows, base):
        """The UNet of the host's model `base`, (x, timesteps, context, y, control, options) -> eps, for a batch of `rows`
        rows of each of some paths; None is the base itself.
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
        token = _RESTARTS.set(self.settings.kmeans_restarts)
        try:
            per_concept = {concept: maps[path] for path in self.paths for concept in path.concepts}
            self.masks.refine(
                step,
                grid,
                maps[None],
                [per_concept[concept] for concept in range(self.masks.count)],
                lambda rows, k: cluster(rows, k),
                self.settings.iou_threshold,
                self.settings.rect_mask,
                self.settings.unmatched == "keep",
            )
        finally:
            _RESTARTS.reset(token)


def _check(settings):
    for name in ("guidance_weight", "guidance_end", "custom_factor", "refine_start", "refine_end", "refine_interval",
                 "iou_threshold"):  # fmt: skip
        value = getattr(settings, name)
        if not math.isfinite(value) or value < 0:
            raise refusal(f"{name} is {value}; enter a number from 0 upwards")
    for name in ("guidance_interval", "kmeans_restarts"):
        if getattr(settings, name) < 1:
            raise refusal(f"{name} is {getattr(settings, name)}; enter 1 or more")


def _list(numbers):
    return ", ".join(f"concept {number}" for number in numbers)
