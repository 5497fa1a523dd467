"""One call of the UNet with all concepts: their rows beside the image's in one batch, or ahead of them."""

from contextlib import suppress

import comfy.model_management

from .concept_control import concept_control, joined_control
from .concept_fusion import (
    AllStored,
    Fusion,
    MapCatcher,
    Stored,
    ending_early,
    with_map,
    with_patches,
)
from .concept_rows import Block, batch_of, block_of, tokens_together
from .rows import COND

# What other nodes put into the UNet is made for the image's rows alone.
FOREIGN = ("patches", "patches_replace", "optimized_attention_override")


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
        stored = Stored()
        for paths in ahead:
            comfy.model_management.throw_exception_if_processing_interrupted()
            fusion = Fusion(conducting.paths, self.layers, conducting.masks, self.rows, run, {}, stored)
            self._run_ahead(paths, fusion, x, timesteps, context, y, control, options)
        groups = {path: number for number, path in enumerate(riding, 1)}
        fusion = Fusion(conducting.paths, self.layers, conducting.masks, self.rows, run, groups, stored)
        out = self._run_image(fusion, x, timesteps, context, y, control, options)
        # another patch may have cut, merged or resized the tokens of some rows: such maps cannot be compared
        grid = conducting.grid_of(self.layers.map)
        if self.wanted and self.grids == {grid}:
            conducting.refine(self.call.moment.step, grid, self.maps)
        return out

    def _split(self, x, context, options):
        """(paths that share the image's batch, lists of paths of which each runs ahead of it)."""
        ahead = [(path,) for path in self.conducting.paths if path in self.conducting.own]
        paths = [path for path in self.conducting.paths if path not in self.conducting.own]
        if not paths:
            return (), ahead
        alone = any(options.get(name) for name in FOREIGN)
        texts = [self.conducting.texts.of(path, chunk.role) for path in paths for chunk in self.call.chunks]
        tokens = [(text or Block(context, None)).context.shape[1] for text in texts]
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

    def _block(self, path, chunk, x, context, y):
        rows = chunk.stop - chunk.start
        inputs = self.conducting.texts.of(path, chunk.role)
        if inputs is None:
            return Block(context[chunk.rows], y[chunk.rows] if y is not None else None)
        return block_of(inputs, rows, x)

    def _cond_rows(self):
        return next((chunk.rows for chunk in self.call.chunks if chunk.role == COND), None)

    def _run_ahead(self, paths, fusion, x, timesteps, context, y, control, options):
        """The rows of some paths alone, without anybody's patches, until their last feature is stored."""
        many = len(paths)
        batch = batch_of(
            [self._block(path, chunk, x, context, y) for path in paths for chunk in self.call.chunks], self.layers
        )
        kept = ("sigmas", "sample_sigmas")
        clean = {name: options[name] for name in kept if name in options} | self._labels(options, many)
        clean = with_patches(
            clean,
            attn1_output_patch=fusion.store("attn1", paths),
            attn2_output_patch=fusion.store("attn2", paths),
        )
        if batch.layered:
            clean = with_patches(clean, attn2_patch=batch.reader(self.layers.order))
        clean, catcher = self._with_map(clean, paths)
        inputs = x.repeat(many, 1, 1, 1), timesteps.repeat(many), batch.context, batch.y
        control = concept_control(self.call, control, x, batch, many, options)
        with self.conducting.weights(paths, self.rows, self.call.base) as unet, suppress(AllStored):
            unet(*inputs, control, clean)
        self.grids |= {catcher.grid} if catcher else set()

    def _run_image(self, fusion, x, timesteps, context, y, control, options):
        """The image's rows, with those of the paths that ride along."""
        paths = tuple(fusion.riding)
        many = 1 + len(paths)
        options, catcher = self._with_map(options, (None, *paths))
        if not paths:
            options = with_patches(
                options, attn1_output_patch=fusion.patch("attn1"), attn2_output_patch=fusion.patch("attn2")
            )
            out = self.forward(x, timesteps, context, y, control, options)
        else:
            blocks = [self._block(path, chunk, x, context, y) for path in paths for chunk in self.call.chunks]
            batch = batch_of([Block(context, y), *blocks], self.layers)
            if control is not None:
                texts = batch_of(blocks, self.layers)
                concepts = concept_control(self.call, control, x, texts, len(paths), options)
                control = joined_control(control, concepts, self.rows, len(paths) * self.rows)
            options = {**options, **self._labels(options, many)}
            if batch.layered:
                options = with_patches(options, attn2_patch=batch.reader(self.layers.order))
            with (
                ending_early(self.unet, self.layers.last, self.rows) as cut,
                self.conducting.adapters.active(self.unet, self.conducting.path_of_rows((None, *paths), self.rows)),
            ):
                options = with_patches(
                    options,
                    attn1_output_patch=fusion.patch("attn1"),
                    attn2_output_patch=fusion.patch("attn2"),
                    output_block_patch=cut,
                )
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
        return with_map(options, self.layers.map, catcher), catcher

    @staticmethod
    def _labels(options, many):
        """Whose rows are whose, as the host writes it, for `many` groups of the call's rows."""
        names = ("cond_or_uncond", "uuids")
        return {name: list(options[name]) * many for name in names if name in options}


def run_to(block, unet, inputs, options):
    """Keys (rows, n, c) of one self-attention; nothing behind it is computed. inputs: (x, timesteps, context, y)."""
    caught = []

    def catch(q, k, v, options):
        caught.append((q, k, options["n_heads"], tuple(options["activations_shape"][-2:])))
        raise AllStored

    options = {**options, "patches_replace": {"attn1": {block: catch}}}
    with suppress(AllStored):
        unet(*inputs, None, options)
    return caught[0]
