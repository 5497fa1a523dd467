"""How our attention techniques join a MODEL: late, beside whatever stands there. The only writer of model options.

Nothing is put at a block before sampling: at each call of the UNet one wrapper asks the techniques of the MODEL what
they do at this noise level, and wraps the callables that stand at those blocks at that moment. On one block, what stood
there runs first, with all rows; then each of our techniques, by its `order`, adds (its attention - plain attention) to
the rows that it plans. So the order of nodes does not matter, and no patch of another pack is lost.
"""

from comfy.patcher_extension import WrapperExecutor, WrappersMP

from .calls import sigma_of, with_patches, with_replacements
from .composed_attention import ComposedAttention
from .rows import LIST_NAMES, names_of
from .run import Run, call_of, step_of

_KEY = "personalization"
RUN = "personalization_run"


def attach(model, technique):
    """A clone of the MODEL with the technique in it; the MODEL that came in stays as it was."""
    patched = model.clone()
    techniques = {t.name: t for t in techniques_of(model)}
    earlier = techniques.get(technique.name)
    techniques[technique.name] = earlier.joined_by(technique) if earlier else technique
    attached = Attached(patched.model, tuple(sorted(techniques.values(), key=lambda t: t.order)))
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, attached.around_run),
        (WrappersMP.PREPARE_SAMPLING, attached.around_loading),
        (WrappersMP.PREDICT_NOISE, attached.around_step),
        (WrappersMP.CALC_COND_BATCH, attached.around_conds),
        (WrappersMP.DIFFUSION_MODEL, attached.around_unet),
    ):
        patched.remove_wrappers_with_key(kind, _KEY)
        patched.add_wrapper_with_key(kind, _KEY, wrapper)
    patched.set_additional_models(_KEY, [one for t in attached.techniques for one in t.models()])
    return patched


def wrap_runs(model, key, wrapper):
    """A clone of the MODEL with an OUTER_SAMPLE wrapper of ours under a key, in the place of an earlier one."""
    patched = unwrap_runs(model, key)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, wrapper)
    return patched


def unwrap_runs(model, key):
    """A clone of the MODEL without the OUTER_SAMPLE wrapper under a key."""
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
    return patched


def techniques_of(model):
    """The techniques that a MODEL carries."""
    wrappers = model.get_wrappers(WrappersMP.DIFFUSION_MODEL, _KEY)
    return wrappers[0].__self__.techniques if wrappers else ()


def technique_of(model, name):
    """The technique of this name that a MODEL carries, or None."""
    return next((technique for technique in techniques_of(model) if technique.name == name), None)


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
        """PREDICT_NOISE: lets techniques move the sampler's latent x (b, C, h, w), in place, before a step."""
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
            # The host puts the masked part back on a copy of the latent, so the sampler's own did not move. A step goes
            # to d + r (x - d), with r = next sigma / sigma and d = denoised: moving x by s would end it r s further,
            # and so does moving d by s r / (1 - r).
            ratio = step.next_sigma / step.moment.sigma
            denoised = denoised + shift * (ratio / (1 - ratio))
        return denoised

    def around_conds(self, executor, base, conds, x, sigma, model_options, *args, **kwargs):
        """CALC_COND_BATCH: notes under which names the guider holds the lists that are run (PAG and SAG run one)."""
        options = model_options.get("transformer_options", {})
        if RUN in options:
            noted = {LIST_NAMES: names_of(conds, options[RUN].conds())}
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
        if sigma_of(options) is not None:
            run = options.get(RUN) or Run()
            call = call_of(run, self.base, executor.original, x, timesteps, context, y, options)
            branches = {}
            for technique in self.techniques:
                for place, branch in technique.plan(call).items():
                    branches.setdefault(place, []).append(branch)
            if branches:
                options = _with_branches(options, branches, call)
            for technique in reversed(self.techniques):
                options = with_patches(options, technique.patches(call), first=True)

            def forward(x, timesteps, context, y, control, options):
                return executor(x, timesteps, context, y, control, options, **kwargs)

            for technique in self.techniques:
                forward = technique.around(call, forward)
            return forward(x, timesteps, context, y, control, options)
        return executor(x, timesteps, context, y, control, options, **kwargs)


def _with_branches(options, branches, call):
    def joined(joining):
        return lambda inner: ComposedAttention(inner, joining, call)

    return with_replacements(options, {place: joined(joining) for place, joining in branches.items()})
