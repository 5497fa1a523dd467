"""One call of the UNet with all concepts: their rows beside the image's in one batch, or ahead of them."""

import comfy.model_management

from ...kernels.masks import WHOLE
from ..host.calls import live_unet, patched_by_others, repeated_sides, with_patches, with_replacements, without_patches
from ..host.frames import window_frame
from ..host.partial_pass import may_end_early
from ..host.picture_rows import pictures_shown
from ..host.read_contexts import contexts_read
from ..host.rows import COND, place_of
from ..host.text_rows import TextRows, rows_of_call, text_batch, tokens_together
from ..host.unet_inputs import bytes_of_call
from .concept_control import concept_control, joined_control
from .concept_fusion import FeatureStore, Fusion, MapCatcher, rows_ending_at
from .concept_masks import MasksOfCall
from .concept_paths import own_text_of


class ConductedCall:
    """One call of the UNet: `conducting` is what lives for the run, `call` what attach.py knows of the call."""

    def __init__(self, conducting, call, forward):
        self.conducting, self.call, self.forward = conducting, call, forward
        self.unet = live_unet(call.base)
        self.layers = conducting.layers
        # the chunk whose attention maps are noted, the maps of this call, and the grids that they are on
        self.looked_at = None
        self.maps, self.grids = {}, set()

    def __call__(self, x, timesteps, context, y, control, options):
        conducting, run = self.conducting, self.call.run
        self.rows = x.shape[0]
        self.looked_at = self._positive() if conducting.refines(self.call) else None
        masks, pictures = self._masks(options)
        if masks is None:
            return self.forward(x, timesteps, context, y, control, options)
        riding, ahead = self._split(x, context, options)
        stored = FeatureStore()
        for paths in ahead:
            comfy.model_management.throw_exception_if_processing_interrupted()
            fusion = Fusion(conducting.paths, self.layers, masks, self.rows, run, {}, stored)
            self._run_ahead(paths, fusion, x, timesteps, context, y, control, options)
        groups = {path: number for number, path in enumerate(riding, 1)}
        fusion = Fusion(conducting.paths, self.layers, masks, self.rows, run, groups, stored)
        out = self._run_image(fusion, x, timesteps, context, y, control, options)
        # another patch may have cut, merged or resized the tokens of some rows: such maps cannot be compared
        grid = conducting.grid_of(self.layers.shapes)
        if self.looked_at is not None and self.grids == {grid} and pictures is not None:
            conducting.note(self.looked_at, pictures, self.maps)
        return out

    def _masks(self, options):
        """(MasksOfCall, numbers of the pictures that the rows show); None for either where nobody can tell."""
        run = self.call.run
        shown = tuple(self.call.x.shape[-2:])
        frame = WHOLE if shown == run.latent_size else window_frame(options, shown, run.latent_size)
        if frame is None:
            run.tell(
                "Concept Conductor: another node samples parts of the picture, or other sizes, so the places of the "
                "concepts are unknown there and the concepts are left out; bypass that node"
            )
            return None, None
        pictures = pictures_shown(self.call, options)
        if pictures is None and (self.looked_at is not None or self.conducting.masks.current.shape[1] > 1):
            run.tell(
                "Concept Conductor: another node samples parts of the batch without saying which pictures they are, so "
                "the masks do not adapt there; bypass that node, or sample all pictures at once"
            )
        return MasksOfCall(self.conducting.masks, pictures, frame), pictures

    def _split(self, x, context, options):
        """(paths that share the image's batch, lists of paths of which each runs ahead of it)."""
        ahead = [(path,) for path in self.conducting.paths if path in self.conducting.own]
        paths = [path for path in self.conducting.paths if path not in self.conducting.own]
        if not paths:
            return (), ahead
        alone = patched_by_others(options)
        texts = [self.conducting.texts.of(path, own_text_of(chunk)) for path in paths for chunk in self.call.chunks]
        tokens = [(text or rows_of_call(context, None)).context.shape[1] for text in texts]
        fits = tokens_together([context.shape[1], *tokens]) and self._memory_for(1 + len(paths), x)
        if fits and not alone:
            return tuple(paths), ahead
        many = len(paths) if tokens_together(tokens) and alone else 1
        while many > 1 and not self._memory_for(many, x):
            many -= 1
        return (), ahead + [tuple(paths[i : i + many]) for i in range(0, len(paths), many)]

    def _memory_for(self, groups, x):
        free = comfy.model_management.get_free_memory(x.device)
        return bytes_of_call(self.call.base, groups * x.shape[0], x.shape) < free

    def _text_rows(self, path, chunk, x, context, y):
        rows = chunk.stop - chunk.start
        if self.conducting.texts.of(path, own_text_of(chunk)) is None:
            y = y[chunk.rows] if y is not None else None
            return rows_of_call(context[chunk.rows], y, contexts_read(self.call, chunk, context))
        return self.conducting.texts.rows(path, own_text_of(chunk), rows, x)

    def _positive(self):
        """The chunk of the first positive prompt of the guider's list that is in this call, None if none is."""
        positives = [chunk for chunk in self.call.chunks if chunk.role == COND]
        return min(positives, key=lambda chunk: place_of(chunk, self.call.run.conds()), default=None)

    def _run_ahead(self, paths, fusion, x, timesteps, context, y, control, options):
        """The rows of some paths alone, without anybody's patches, until their last feature is stored."""
        many = len(paths)
        texts = [self._text_rows(path, chunk, x, context, y) for path in paths for chunk in self.call.chunks]
        batch = text_batch(texts, self.layers.levels)
        clean = repeated_sides(without_patches(options), many)
        clean = with_patches(clean, {f"{kind}_output_patch": fusion.store(kind, paths) for kind in ("attn1", "attn2")})
        clean = batch.read_by(clean, self.call.whole_timestep)
        clean, catcher = self._with_map(clean, paths)
        inputs = x.repeat(many, 1, 1, 1), timesteps.repeat(many), batch.context, batch.y
        control = concept_control(self.call, control, x, batch, many, options)
        with self.conducting.weights(paths, self.rows, self.call.base) as unet, may_end_early():
            unet(*inputs, control, clean)
        self.grids |= {catcher.grid} if catcher else set()

    def _run_image(self, fusion, x, timesteps, context, y, control, options):
        """The image's rows, with those of the paths that ride along."""
        paths = tuple(fusion.riding)
        many = 1 + len(paths)
        options, catcher = self._with_map(options, (None, *paths))
        blending = {f"{kind}_output_patch": fusion.patch(kind) for kind in ("attn1", "attn2")}
        if not paths:
            options = with_patches(options, blending)
            out = self.forward(x, timesteps, context, y, control, options)
        else:
            texts = [self._text_rows(path, chunk, x, context, y) for path in paths for chunk in self.call.chunks]
            batch = text_batch([TextRows(context, y), *texts], self.layers.levels)
            if control is not None:
                alone = text_batch(texts, self.layers.levels)
                concepts = concept_control(self.call, control, x, alone, len(paths), options)
                control = joined_control(control, concepts, self.rows, len(paths) * self.rows)
            options = batch.read_by(repeated_sides(options, many), self.call.whole_timestep)
            path_of_rows = self.conducting.path_of_rows((None, *paths), self.rows)
            with (
                rows_ending_at(self.unet, self.layers.last, self.rows) as cut,
                self.conducting.adapters.active(
                    self.unet, path_of_rows, self.call.base.current_patcher, self.call.run.tell
                ),
            ):
                options = with_patches(options, {**blending, "output_block_patch": cut})
                inputs = x.repeat(many, 1, 1, 1), timesteps.repeat(many), batch.context, batch.y
                out = self.forward(*inputs, control, options)[: self.rows]
        self.grids |= {catcher.grid} if catcher else set()
        return out

    def _with_map(self, options, owners):
        if self.looked_at is None:
            return options, None
        rows = self.looked_at.rows
        spans = {
            owner: slice(group * self.rows + rows.start, group * self.rows + rows.stop)
            for group, owner in enumerate(owners)
        }
        catcher = MapCatcher(spans, self.maps)
        return with_replacements(options, {("attn1", self.layers.shapes): catcher.replacing}), catcher
