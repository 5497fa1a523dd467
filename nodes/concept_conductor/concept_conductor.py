"""Concept Conductor (arXiv 2408.03632): several concepts, each with its own weights and prompt, in one picture.

At each call of the UNet the concepts' rows run beside the image's rows with their own adapters, and what their
attentions in the decoder give is blended into the image's rows where their masks are. In the first steps a gradient
moves the latent towards the layout of another picture; a few steps later the masks follow the shapes that show.
"""

from dataclasses import dataclass

import torch

from ..host.attach import attach
from ..host.blocks import grid_at, unet_of
from ..host.families import check_one_device
from ..host.messages import input_error, log_warning, warn_user
from ..host.run_records import keep_record
from ..host.technique import Technique
from ..host.unet_inputs import check_prompt
from ..row_adapters.batch_adapters import RowAdapters
from ..row_adapters.own_weights import OwnWeights
from .concept_masks import ConceptMasks, latent_masks
from .concept_passes import ConductedCall
from .concept_paths import paths_of
from .concept_prompts import check_concept
from .concepts_wire import concept_label
from .conductor_layers import layers_of
from .conductor_run import Conducting

NAME = "concept_conductor"
# Samplers that show the model a copy of their latent: moving that would push the wrong way.
COPYING = ("sample_unipc", "sample_unipc_bh2")


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
    conductor.check_one_device(model)
    return attach(model, conductor)


@dataclass(frozen=True, eq=False)
class MaskRecord:
    """What one run did to the masks, on the CPU, for the node that shows them."""

    start: torch.Tensor  # (N, h, w) bool
    end: torch.Tensor  # (N, 1 or images, h, w) bool


class Conductor(Technique):
    """The technique of one MODEL."""

    name = NAME
    order = 10

    def __init__(self, model, concepts, settings, layers, layout):
        """concepts: {how messages call it: Concept}."""
        self.concepts, self.settings, self.layers, self.layout = concepts, settings, layers, layout
        self.paths = paths_of(model, tuple(concepts.values()))
        self.own = {path: OwnWeights(model, path.deltas) for path in self.paths if path.deltas.needs_own_forward}
        self.shared = tuple(path for path in self.paths if path not in self.own)
        self.adapters = RowAdapters(model, [path.deltas for path in self.shared])

    def joined_by(self, later):
        """Raises ValueError: all concepts belong to one."""
        raise input_error(
            "this model already has a Concept Conductor; chain all concepts and connect them to a single one"
        )

    def models(self):
        return [*self.adapters.models(), *(one for own in self.own.values() for one in own.models())]

    def extra_rows(self, noise_shape):
        return len(self.paths) * noise_shape[0]

    def begin(self, run):
        """Raises ValueError for a model on several devices, prompts with areas, masks that cover no cell."""
        self.check_one_device(run.guider.model_patcher)
        for name, entries in run.conds().items():
            # an area in pixels or percent, or a mask whose bounds the host makes into one
            if any(entry.get("area") or entry.get("set_area_to_bounds") for entry in entries):
                raise input_error(
                    f"the {name} prompt has an area, but Concept Conductor works on the whole picture; remove the "
                    "area, the concepts' masks replace it"
                )
        masks = self._masks(run.latent_size)
        grids = {grid_at(level, run.latent_size) for level in self.layers.levels.values()}
        self._tell_of_lost_cells(
            masks, {grid_at(self.layers.levels[key], run.latent_size) for key in self.layers.fused}
        )
        conducting = run.state(self.name, lambda: Conducting(self, run, masks, grids))
        if conducting.guidance is not None and run.sampler in COPYING:
            warn_user(
                "layout guidance is off: this sampler (uni_pc) works on a copy of the latent, which guidance cannot "
                "change; use another sampler, such as euler or dpmpp_2m"
            )
            conducting.guidance = None
        if conducting.guidance is not None:
            # before the model is loaded: the VAE needs the memory for a moment
            self.layout.latent(run.guider.model_patcher.model, run.latent_size)

    def finished(self, run, latents):
        masks = run.state(self.name, lambda: None).masks
        keep_record(self, latents, MaskRecord(masks.first, masks.following))

    def shift(self, step):
        conducting = step.run.state(self.name, lambda: None)
        if conducting is None or conducting.guidance is None:
            return None
        conducting.prepare(step.base, step.run.schedule({}) or [step.moment.sigma])
        return conducting.guidance.shift(step)

    def around(self, call, forward):
        """Raises ValueError for rows that show a part of the picture."""
        conducting = call.run.state(self.name, lambda: None)
        if conducting is None:
            # nobody samples: some node looks at the UNet
            return forward
        if any(chunk.area is not None for chunk in call.chunks):
            raise input_error("a prompt has an area, but Concept Conductor works on the whole picture; remove the area")
        if tuple(call.x.shape[-2:]) != call.run.latent_size:
            if call.run.once("parts"):
                log_warning(
                    "Concept Conductor: another patch samples parts of the picture, or other sizes, so the places of "
                    "the concepts are unknown there; the concepts are skipped"
                )
            return forward
        conducting.prepare(call.base, call.run.schedule({}) or [call.moment.sigma])
        return ConductedCall(conducting, call, forward)

    def check_one_device(self, model):
        """ValueError for a MODEL on several devices, unless no concept has weights."""
        if self.models() or self.own:
            check_one_device(model, "Concept Conductor with LoRAs")

    def _masks(self, latent_size):
        layout_size = tuple(self.layout.pixels.shape[1:3]) if self.layout else None
        masks = latent_masks([concept.mask for concept in self.concepts.values()], latent_size, layout_size)
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
