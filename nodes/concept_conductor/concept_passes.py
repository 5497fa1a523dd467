"""One call of the UNet with all concepts: their rows beside the image's in one batch, or ahead of them."""

import comfy.model_management

from ..host.calls import patched_by_others, repeated_sides, with_patches, with_replacements, without_patches
from ..host.partial_pass import may_end_early
from ..host.rows import COND
from ..host.text_rows import TextRows, text_batch, text_rows, tokens_together
from .concept_control import concept_control, joined_control
from .concept_fusion import FeatureStore, Fusion, MapCatcher, rows_ending_at


class ConductedCall:
    """One call of the UNet: `conducting` is what lives for the run, `call` what attach.py knows of the call."""

    def __init__(self, conducting, call, forward):
        self.conducting, self.call, self.forward = conducting, call, forward
        self.unet = call.base.diffusion_model
        self.layers = conducting.layers
        # the attention maps of this call, and the grids that they are on
        self.maps, self.grids = {}, set()

    def __call__(self, x, timesteps, context, y, control, options):
        conducting, run = self.conducting, self.call.run
        conducting.masks.enter(self.call.moment.step)
        self.rows = x.shape[0]
        self.wanted = conducting.refines(self.call) and self._cond_rows() is not None
        riding, ahead = self._split(x, context, options)
        stored = FeatureStore()
        for paths in ahead:
            comfy.model_management.throw_exception_if_processing_interrupted()
            fusion = Fusion(conducting.paths, self.layers, conducting.masks, self.rows, run, {}, stored)
            self._run_ahead(paths, fusion, x, timesteps, context, y, control, options)
        groups = {path: number for number, path in enumerate(riding, 1)}
        fusion = Fusion(conducting.paths, self.layers, conducting.masks, self.rows, run, groups, stored)
        out = self._run_image(fusion, x, timesteps, context, y, control, options)
        # another patch may have cut, merged or resized the tokens of some rows: such maps cannot be compared
        grid = conducting.grid_of(self.layers.shapes)
        if self.wanted and self.grids == {grid}:
            conducting.refine(self.call.moment.step, grid, self.maps)
        return out

    def _split(self, x, context, options):
        """(paths that share the image's batch, lists of paths of which each runs ahead of it)."""
        ahead = [(path,) for path in self.conducting.paths if path in self.conducting.own]
        paths = [path for path in self.conducting.paths if path not in self.conducting.own]
        if not paths:
            return (), ahead
        alone = patched_by_others(options)
        texts = [self.conducting.texts.of(path, chunk.role) for path in paths for chunk in self.call.chunks]
        tokens = [(text or TextRows(context, None)).context.shape[1] for text in texts]
        fits = tokens_together([context.shape[1], *tokens]) and self._memory_for(1 + len(paths), x)
        if fits and not alone:
            return tuple(paths), ahead
        many = len(paths) if tokens_together(tokens) and alone else 1
        while many > 1 and not self._memory_for(many, x):
            many -= 1
        return (), ahead + [tuple(paths[i : i + many]) for i in range(0, len(paths), many)]

    def _memory_for(self, groups, x):
        # the host's own rule
        free = comfy.model_management.get_free_memory(x.device)
        return self.call.base.memory_required([groups * x.shape[0], *x.shape[1:]]) * 1.5 < free

    def _text_rows(self, path, chunk, x, context, y):
        rows = chunk.stop - chunk.start
        inputs = self.conducting.texts.of(path, chunk.role)
        if inputs is None:
            return TextRows(context[chunk.rows], y[chunk.rows] if y is not None else None)
        return text_rows(inputs, rows, x)

    def _cond_rows(self):
        return next((chunk.rows for chunk in self.call.chunks if chunk.role == COND), None)

    def _run_ahead(self, paths, fusion, x, timesteps, context, y, control, options):
        """The rows of some paths alone, without anybody's patches, until their last feature is stored."""
        many = len(paths)
        texts = [self._text_rows(path, chunk, x, context, y) for path in paths for chunk in self.call.chunks]
        batch = text_batch(texts, self.layers.levels)
        clean = repeated_sides(without_patches(options), many)
        clean = with_patches(clean, {f"{kind}_output_patch": fusion.store(kind, paths) for kind in ("attn1", "attn2")})
        clean = batch.read_by(clean)
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
            options = batch.read_by(repeated_sides(options, many))
            with (
                rows_ending_at(self.unet, self.layers.last, self.rows) as cut,
                self.conducting.adapters.active(self.unet, self.conducting.path_of_rows((None, *paths), self.rows)),
            ):
                options = with_patches(options, {**blending, "output_block_patch": cut})
                inputs = x.repeat(many, 1, 1, 1), timesteps.repeat(many), batch.context, batch.y
                out = self.forward(*inputs, control, options)[: self.rows]
        self.grids |= {catcher.grid} if catcher else set()
        return out

    def _with_map(self, options, owners):
        if not self.wanted:
            return options, None
        rows = self._cond_rows()
        spans = {
            owner: slice(group * self.rows + rows.start, group * self.rows + rows.stop)
            for group, owner in enumerate(owners)
        }
        catcher = MapCatcher(spans, self.maps)
        return with_replacements(options, {("attn1", self.layers.shapes): catcher.replacing}), catcher
