"""Concept Conductor (arXiv 2408.03632): several concepts, each with its own weights and prompt, in one picture.

At each call of the UNet the concepts' rows run beside the image's rows with their own adapters, and what their
attentions in the decoder give is blended into the image's rows where their masks are. In the first steps a gradient
moves the latent towards the layout of another picture; a few steps later the masks follow the shapes that show.
"""

import math
from dataclasses import dataclass

import torch

from ..host.attach import attach
from ..host.blocks import grid_at, unet_of
from ..host.calls import live_unet
from ..host.frames import tell_of_stretch
from ..host.layered_prompts import models_of
from ..host.messages import input_error, warn_user
from ..host.packed_weights import check_unpackable
from ..host.run_records import keep_record, record_of
from ..host.technique import Technique
from ..host.unet_inputs import check_prompt
from ..host.when import ROUNDING
from ..row_adapters.batch_adapters import RowAdapters
from ..row_adapters.own_weights import OwnWeights, share_checkpoints
from .concept_masks import ConceptMasks, latent_masks
from .concept_passes import ConductedCall
from .concept_paths import paths_of
from .concept_prompts import check_concept
from .concepts_wire import concept_label
from .conductor_layers import layers_of
from .conductor_run import Conducting


def attach_conductor(model, concepts, settings, layout=None):
    """The MODEL with the concepts in it; the MODEL itself where there are none.

    concepts: tuple of Concepts; layout: a LayoutPicture, or None for no guidance. Raises ValueError for what it cannot
    work with.
    """
    unet = unet_of(model, "Concept Conductor")
    labels = [concept_label(number, concept.word) for number, concept in enumerate(concepts, 1)]
    acting = {label: concept for label, concept in zip(labels, concepts, strict=True) if concept.strength}
    if not concepts:
        warn_user("no concepts are connected, so this node does nothing")
    if not acting:
        return model
    missing = [label for label, concept in acting.items() if concept.mask is None]
    if missing:
        raise input_error(
            f"a mask is missing for {', '.join(missing)}; connect one to each Add Concept: painted, from Box Mask, or "
            "from Layout Mask"
        )
    for label, concept in acting.items():
        if not concept.mask.any():
            raise input_error(f"the mask of {label} is empty; paint it white where the concept should appear")
    # says first if a concept's model is of another family, whose prompts would not fit either
    conductor = Conductor(model, acting, settings, layers_of(unet), layout)
    for label, concept in acting.items():
        check_concept(model, label, concept)
    if layout is not None:
        check_prompt(model, [layout.text], "layout_positive")
    return attach(model, conductor)


@dataclass(frozen=True, eq=False)
class MaskRecord:
    """What one run did to the masks, on the CPU, for the node that shows them."""

    start: torch.Tensor  # (N, h, w) bool
    end: torch.Tensor  # (N, 1 or images, h, w) bool
    state: tuple = ()  # of the ConceptMasks
    sigma: float = 0.0  # the noise level at which the run ended


class Conductor(Technique):
    """The technique of one MODEL."""

    name = "concept_conductor"
    order = 10

    def __init__(self, model, concepts, settings, layers, layout):
        """concepts: {how messages call it: Concept}. Raises ValueError for some that cannot run beside each other."""
        self.concepts, self.settings, self.layers, self.layout = concepts, settings, layers, layout
        self.cache_bytes = settings.cache_bytes if layout is not None else None
        self.paths = paths_of(model, tuple(concepts.values()))
        self.own = {path: OwnWeights(model, path.deltas) for path in self.paths if path.deltas.needs_own_forward}
        share_checkpoints(self.own.values(), model)
        self.shared = tuple(path for path in self.paths if path not in self.own)
        self.adapters = RowAdapters(model, [path.deltas for path in self.shared], label="Concept Conductor")

    def joined_by(self, later):
        """Raises ValueError: all concepts belong to one."""
        raise input_error(
            "this model already has a Concept Conductor; chain all concepts and connect them to a single one"
        )

    def models(self):
        texts = [text for path in self.paths for text in (path.positive, path.negative)]
        # a checkpoint that several concepts share comes once
        own = dict.fromkeys(one for own in self.own.values() for one in own.models())
        return [*self.adapters.models(), *own, *models_of(*texts, self.layout and self.layout.text)]

    def extra_rows(self, noise_shape):
        return len(self.paths) * noise_shape[0]

    def begin(self, run):
        """Raises ValueError for prompts with areas, masks that cover no cell, weights that cannot be read."""
        for name, entries in run.conds().items():
            # an area in pixels or percent, or a mask whose bounds the host makes into one
            if any(entry.get("area") or entry.get("set_area_to_bounds") for entry in entries):
                raise input_error(
                    f"the {name} prompt has an area, but Concept Conductor works on the whole picture; remove the "
                    "area, the concepts' masks replace it"
                )
        masks = self._masks(run)
        grids = {grid_at(level, run.latent_size) for level in self.layers.levels.values()}
        self._tell_of_lost_cells(
            masks, {grid_at(self.layers.levels[key], run.latent_size) for key in self.layers.fused}
        )
        conducting = run.state(self.name, lambda: Conducting(self, run, masks, grids))
        before = record_of(self, run.continued) if run.continued is not None else None
        if before is not None and math.isclose(before.sigma, run.schedule({})[0], rel_tol=ROUNDING):
            conducting.masks.go_on(before.state)
        if conducting.guidance is not None and not conducting.guidance.steps.come(run):
            conducting.guidance = None
        if conducting.guidance is not None and not conducting.guidance.steps.follow(run):
            warn_user(
                "layout guidance is off with this sampler: it works on a copy of the latent, or finds its steps as it "
                "goes, so guidance cannot move it; use another one, such as euler or dpmpp_2m"
            )
            conducting.guidance = None
        self._check_weights(run.guider.model_patcher.model, conducting.guidance is not None)
        if conducting.guidance is not None:
            # before the model is loaded: the VAE needs the memory for a moment
            self.layout.latent(run.guider.model_patcher.model, run.latent_size)

    def finished(self, run, latents):
        masks = self._conducting(run).masks
        keep_record(self, latents, MaskRecord(masks.first, masks.following, masks.state, run.schedule({})[-1]))

    def enter(self, step):
        self._conducting(step.run).enter(step)

    def leave(self, step):
        self._conducting(step.run).leave(step)

    def shift(self, step):
        conducting = self._conducting(step.run)
        # also where nothing moves: in the sampler's thread, before any call
        conducting.prepare(step)
        guidance = conducting.guidance
        shift = guidance.shift(step) if guidance is not None else None
        return guidance.held(shift, step) if shift is not None else None

    def around(self, call, forward):
        """Raises ValueError for a prompt with an area."""
        conducting = self._conducting(call.run)
        if conducting is None:
            # nobody samples: some node looks at the UNet
            return forward
        if any(chunk.area is not None for chunk in call.chunks):
            raise input_error("a prompt has an area, but Concept Conductor works on the whole picture; remove the area")
        conducting.prepare(call)
        return ConductedCall(conducting, call, forward)

    def _check_weights(self, base, guided):
        """Raises ValueError for packed weights that must be unpacked and cannot be."""
        for path, own in self.own.items():
            check_unpackable(own.layers(base), f"a concept with {', '.join(path.deltas.needs_own_forward)}")
        if guided:
            check_unpackable(live_unet(base).modules(), "layout guidance")

    def _conducting(self, run):
        """What `begin` has made for the run; None where nobody samples."""
        return run.state(self.name, lambda: None)

    def _masks(self, run):
        layout_size = tuple(self.layout.pixels.shape[1:3]) if self.layout else None
        own = [concept.mask for concept in self.concepts.values()]
        tell_of_stretch(run, "Concept Conductor", "a mask", [mask for mask in own if tuple(mask.shape) != layout_size])
        masks = latent_masks(own, run.latent_size, layout_size)
        for label, mask in zip(self.concepts, masks, strict=True):
            if not mask.any():
                raise input_error(f"the mask of {label} covers no cell of the latent; draw it larger")
        return masks

    def _tell_of_lost_cells(self, masks, grids):
        built = ConceptMasks(masks, grids, self.settings.close_seams)
        for number, label in enumerate(self.concepts):
            cells = {grid: int(built.at(grid, torch.device("cpu"))[number].sum()) for grid in sorted(grids)}
            if not all(cells.values()):
                counts = ", ".join(f"{count} on the {w}x{h} grid" for (h, w), count in cells.items())
                warn_user(
                    f"the mask of {label} is too small for some layers, which ignore it "
                    f"(cells: {counts}); draw it larger"
                )
