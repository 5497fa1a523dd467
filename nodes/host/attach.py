"""How our attention techniques join a MODEL: late, beside whatever stands there. The only writer of model options.

Nothing is put at a block before sampling: at each call of the UNet one wrapper asks the techniques of the MODEL what
they do at this noise level, and wraps the callables that stand at those blocks at that moment. On one block, what stood
there runs first, with all rows; then each of our techniques, in the order of their names, adds (its attention - plain
attention) to the rows that it plans. So the order of nodes does not matter, and no patch of another pack is lost.
"""

import logging
from functools import cache, partial
from operator import getitem

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from .attention import plain_attention
from .rows import NAMES, coupled_chunks, names_of
from .run import Run, call_of, step_of

log = logging.getLogger(__name__)

KEY = "personalization"
RUN = "personalization_run"


class Technique:
    """What attach.py asks of an attention technique. Techniques are immutable: clones of a MODEL share them."""

    name = ""

    def joined_by(self, later):
        """This technique and a later one of the same name, as one."""
        raise NotImplementedError

    def extra_rows(self, noise_shape):
        """Rows of `noise_shape` whose memory the technique needs beside the sampler's own."""
        return 0

    def models(self):
        """ModelPatchers that are to be loaded with the MODEL."""
        return []

    def begin(self, run):
        """Called at the start of a run, before the host loads the model; ValueError refuses a run."""

    def end(self, run):
        """Called at the end of a run, however it ends."""

    def shift(self, step):
        """What to add to the sampler's latent before a step (a tensor of its shape), or None."""
        return

    def plan(self, call):
        """{(kind, block): branch} for one call; kind is "attn1" or "attn2".

        A branch is called as branch(q, k, v, options, chunk, plain) with the rows of one chunk; plain() is what the
        host alone would compute for them. It returns their attention (shape of q, before the output projection), or
        None where it leaves the chunk alone. One that adds to plain attention says so by `adds = True`: then plain
        attention is computed for all rows at once.
        """
        return {}

    def around(self, call, forward):
        """The UNet for one call: `forward`, or a function around it, of (x, timesteps, context, y, control, options).

        What stands at the blocks, of us or of others, is in the options by then, and made for the rows of this call.
        """
        return forward

    def patches(self, call):
        """{slot: patch} for one call, for the host's slots that stack ("attn2_patch"); ours run before those there."""
        return {}

    def finished(self, run, latents):
        """A run came to its end with these latents, which are the result that the user gets."""


def attach(model, technique):
    """A clone of the MODEL with the technique in it; the MODEL that came in stays as it was."""
    patched = model.clone()
    techniques = {t.name: t for t in techniques_of(model)}
    earlier = techniques.get(technique.name)
    techniques[technique.name] = earlier.joined_by(technique) if earlier else technique
    attached = Attached(patched.model, tuple(techniques[name] for name in sorted(techniques)))
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, attached.around_run),
        (WrappersMP.PREPARE_SAMPLING, attached.around_loading),
        (WrappersMP.PREDICT_NOISE, attached.around_step),
        (WrappersMP.CALC_COND_BATCH, attached.around_conds),
        (WrappersMP.DIFFUSION_MODEL, attached.around_unet),
    ):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    patched.set_additional_models(KEY, [one for t in attached.techniques for one in t.models()])
    return patched


def techniques_of(model):
    """The techniques that a MODEL carries."""
    wrappers = model.get_wrappers(WrappersMP.DIFFUSION_MODEL, KEY)
    return wrappers[0].__self__.techniques if wrappers else ()


class Attached:
    """The techniques of one MODEL and the host's wrappers that serve them. Immutable, so clones may share it."""

    def __init__(self, base, techniques):
        self.base = base
        self.techniques = techniques

    def around_run(self, executor, noise, latent_image, sampler, sigmas, denoise_mask=None, *args, **kwargs):
        """OUTER_SAMPLE: makes the run's state and drops it at the end, after an error and after an interrupt."""
        guider = executor.class_obj
        # the guider's options are its own copy for this run
        options = guider.model_options["transformer_options"]
        run = options[RUN] = Run(guider, tuple(noise.shape), denoise_mask is not None, sampler)
        try:
            for technique in self.techniques:
                technique.begin(run)
            latents = executor(noise, latent_image, sampler, sigmas, denoise_mask, *args, **kwargs)
            for technique in self.techniques:
                technique.finished(run, latents)
            return latents
        finally:
            options.pop(RUN, None)
            for technique in self.techniques:
                technique.end(run)
            run.close()

    def around_loading(self, executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: announces the rows of our extra passes, before memory is given out."""
        rows = noise_shape[0] + sum(t.extra_rows(noise_shape) for t in self.techniques)
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    def around_step(self, executor, x, sigma, model_options=None, *args, **kwargs):
        """PREDICT_NOISE: lets techniques move the sampler's latent before a step."""
        options = (model_options or {}).get("transformer_options", {})
        shifts = []
        if RUN in options:
            step = step_of(options[RUN], self.base, x, sigma, options)
            shifts = [shift for shift in (t.shift(step) for t in self.techniques) if shift is not None]
        if not shifts:
            return executor(x, sigma, model_options, *args, **kwargs)
        shift = sum(shifts)
        # in place: the sampler's own latent moves, not only what this step sees
        x += shift
        denoised = executor(x, sigma, model_options, *args, **kwargs)
        if options[RUN].masked:
            # the host has copied the latent to put the masked part back; this makes the sampler land where it would
            ratio = step.next_sigma / step.moment.sigma
            denoised = denoised + shift * (ratio / (1 - ratio))
        return denoised

    def around_conds(self, executor, base, conds, x, sigma, model_options, *args, **kwargs):
        """CALC_COND_BATCH: notes under which names the guider holds the lists that are run (PAG and SAG run one)."""
        options = model_options.get("transformer_options", {})
        if RUN in options:
            noted = {NAMES: names_of(conds, options[RUN].conds())}
            model_options = {**model_options, "transformer_options": {**options, **noted}}
        return executor(base, conds, x, sigma, model_options, *args, **kwargs)

    def around_unet(
        self, executor, x, timesteps, context=None, y=None, control=None, transformer_options=None, **kwargs
    ):
        """DIFFUSION_MODEL: puts the branches of our techniques at their blocks, for this call only."""
        rest = executor.wrappers[executor.idx + 1 :]
        if any(not isinstance(getattr(wrapper, "__self__", None), Attached) for wrapper in rest):
            # innermost of all, so that what other packs' wrappers put into the options stands before we look
            last = WrapperExecutor.new_class_executor(executor.original, executor.class_obj, [*rest, self.around_unet])
            return last.execute(x, timesteps, context, y, control, transformer_options, **kwargs)
        options = {} if transformer_options is None else transformer_options
        # without a noise level nobody samples: some node looks at the bare UNet
        if "sigmas" in options:
            run = options.get(RUN) or Run()
            call = call_of(run, self.base, executor.original, x, timesteps, context, y, options)
            branches = {}
            for technique in self.techniques:
                for place, branch in technique.plan(call).items():
                    branches.setdefault(place, []).append(branch)
            if branches:
                options = _with_branches(options, branches, call)
            options = _with_patches(options, [technique.patches(call) for technique in self.techniques])

            def forward(x, timesteps, context, y, control, options):
                return executor(x, timesteps, context, y, control, options, **kwargs)

            for technique in self.techniques:
                forward = technique.around(call, forward)
            return forward(x, timesteps, context, y, control, options)
        return executor(x, timesteps, context, y, control, options, **kwargs)


def _with_branches(options, branches, call):
    replace = {kind: dict(standing) for kind, standing in options.get("patches_replace", {}).items()}
    for (kind, block), joining in branches.items():
        standing = replace.setdefault(kind, {})
        # the host looks for the full key first, then for the one that names a whole block
        inner = standing.get(block, standing.get(block[:2]))
        standing[block] = Joined(inner, joining, call)
    return {**options, "patches_replace": replace}


def _with_patches(options, ours):
    if not any(ours):
        return options
    patches = {slot: list(standing) for slot, standing in options.get("patches", {}).items()}
    for slot, patch in (pair for several in reversed(ours) for pair in several.items()):
        patches.setdefault(slot, []).insert(0, patch)
    return {**options, "patches": patches}


class Joined:
    """The callable at one block for one call of the UNet: what stood there, and our branches."""

    def __init__(self, inner, branches, call):
        self.inner = inner
        self.branches = branches
        self.call = call

    def __call__(self, q, k, v, options):
        standing = self.inner(q, k, v, options) if self.inner else None
        chunks, rows = self.call.chunks, self.call.x.shape[0]
        if k.shape[0] != rows:
            chunks, rows = coupled_chunks(options, k.shape[0]), k.shape[0]
        if not chunks or q.shape[0] % rows:
            self._leave_out("another patch changed the number of rows")
            return plain_attention(q, k, v, options) if standing is None else standing
        # HyperTile cuts q into tiles as further rows; the host's attention then reads k and v in as many strips
        tiles = q.shape[0] // rows
        k, v = (t.reshape(q.shape[0], -1, t.shape[-1]) for t in (k, v))
        if standing is not None and standing.shape != q.shape:
            self._leave_out("another patch returned an attention of another shape")
            return standing

        plain_of_all = plain_attention(q, k, v, options) if any(branch.adds for branch in self.branches) else None
        out = torch.empty_like(q)
        for chunk in chunks:
            own = slice(chunk.start * tiles, chunk.stop * tiles)
            mine = q[own], k[own], v[own], options
            plain = (
                cache(partial(plain_attention, *mine)) if plain_of_all is None else partial(getitem, plain_of_all, own)
            )
            ours = [o for o in (branch(*mine, chunk, plain) for branch in self.branches) if o is not None]
            out[own] = _composed(standing[own] if standing is not None else None, ours, plain)
        return out

    def _leave_out(self, reason):
        if self.call.run.once(reason):
            log.warning("%s; our attention is left out at its blocks", reason)


def _composed(standing, ours, plain):
    if standing is None:
        if not ours:
            return plain()
        if len(ours) == 1:
            return ours[0]
        standing = plain()
    return standing + sum(o - plain() for o in ours)
