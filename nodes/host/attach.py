"""How our attention techniques join a MODEL: late, beside whatever stands there. The only writer of model options.

Nothing is put at a block before sampling: at each call of the UNet one wrapper asks the techniques of the MODEL what
they do at this noise level, and wraps the callables that stand at those blocks at that moment. On one block, what stood
there runs first, with all rows; then each of our techniques, by its `order`, adds (its attention - plain attention) to
the rows that it plans. So the order of nodes does not matter, and no patch of another pack is lost.
"""

from comfy.patcher_extension import WrappersMP

from .bank import shrink_bank
from .calls import sigmas_of, with_patches, with_replacements
from .compiled import tell_of_compiling, uncompiled
from .composed_attention import ComposedAttention
from .devices import beside
from .innermost import Innermost, put_outermost
from .left_out import twice_if_too_late
from .moved_latents import after_move, moved
from .other_lists import run_lists
from .rows import told_by_role
from .run import RUNNING, Run, Running, call_of, step_of
from .technique import begin_all

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
        (WrappersMP.OUTER_SAMPLE, Innermost(attached.around_run)),
        (WrappersMP.PREPARE_SAMPLING, attached.around_loading),
        (WrappersMP.PREDICT_NOISE, attached.around_step),
        (WrappersMP.CALC_COND_BATCH, Innermost(attached.around_conds)),
        (WrappersMP.APPLY_MODEL, attached.around_model),
        (WrappersMP.DIFFUSION_MODEL, Innermost(attached.around_unet)),
    ):
        patched.remove_wrappers_with_key(kind, _KEY)
        patched.add_wrapper_with_key(kind, _KEY, wrapper)
    patched.set_additional_models(_KEY, [beside(model, one) for t in attached.techniques for one in t.models()])
    return patched


def wrap_runs(model, key, wrapper):
    """A clone of the MODEL with an OUTER_SAMPLE wrapper of ours under a key, in the place of an earlier one.

    Wrappers of others lie outside it: each sampling inside theirs is a run of its own.
    """
    patched = unwrap_runs(model, key)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, Innermost(wrapper))
    return patched


def unwrap_runs(model, key):
    """A clone of the MODEL without the OUTER_SAMPLE wrapper under a key."""
    patched = model.clone()
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
    return patched


def techniques_of(model):
    """The techniques that a MODEL carries."""
    wrappers = model.get_wrappers(WrappersMP.DIFFUSION_MODEL, _KEY)
    return wrappers[0].wrapper.__self__.techniques if wrappers else ()


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
        tell_of_compiling(guider.model_patcher)
        # the guider's options are its own copy for this run
        options = guider.model_options["transformer_options"]
        # the sampler's own latent moves, whatever others make of it, and also in steps that they leave out
        put_outermost(options, WrappersMP.PREDICT_NOISE, _KEY)
        noised, shape = bool(noise.any()), tuple(noise.shape)
        begun = {"continued": None if noised else latent_image, "fresh": noised and not latent_image.any()}
        run = options[RUN] = Run(guider, shape, denoise_mask is not None, sampler, sigmas.tolist(), **begun)
        # a budget that has been lowered since the last run frees memory now
        shrink_bank(guider.model_patcher.model, [t.cache_bytes for t in self.techniques])
        try:
            begin_all(self.techniques, run)
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
        """PREPARE_SAMPLING: before memory is given out, brings our models to the MODEL's device and announces the rows
        of our extra passes.
        """
        # a node behind us may have sent the MODEL to another device
        additional = model.get_additional_models_with_key(_KEY)
        model.set_additional_models(_KEY, [beside(model, one) for one in additional])
        rows = noise_shape[0] + sum(t.extra_rows(noise_shape) for t in self.techniques)
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    def around_step(self, executor, x, sigma, model_options=None, *args, **kwargs):
        """PREDICT_NOISE: what happens once per evaluation, in the sampler's thread. Techniques may move its latent x
        (b, C, h, w), in place, before a step.
        """
        options = (model_options or {}).get("transformer_options", {})
        if RUN not in options:
            return executor(x, sigma, model_options, *args, **kwargs)
        step = step_of(options[RUN], self.base, x, sigma, options)
        step.run.latents = x
        for technique in self.techniques:
            technique.enter(step)
        shift = moved(x, step, self.techniques)
        denoised = twice_if_too_late(executor, step.run)(x, sigma, model_options, *args, **kwargs)
        for technique in self.techniques:
            technique.leave(step)
        return after_move(denoised, shift, step)

    def around_conds(self, executor, base, conds, x, sigma, model_options, *args, **kwargs):
        """CALC_COND_BATCH: notes which lists of entries are run; techniques may have others run in their place.

        Innermost, since others may run single lists. Whatever is compiled lies inside: here compiling is switched off.
        """

        def predict(lists, options):
            return executor(base, lists, x, sigma, {**model_options, "transformer_options": options}, *args, **kwargs)

        options = model_options.get("transformer_options", {})
        with uncompiled():
            if RUN not in options:
                return predict(conds, options)
            return run_lists(self.techniques, conds, options, options[RUN], sigma, predict)

    def around_model(
        self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
    ):
        """APPLY_MODEL: notes which model runs. On several devices each has its own, and the guider knows the first."""
        options = {**(transformer_options or {}), RUNNING: Running(executor.class_obj)}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def around_unet(
        self, executor, x, timesteps, context=None, y=None, control=None, transformer_options=None, **kwargs
    ):
        """DIFFUSION_MODEL: puts the branches of our techniques at their blocks, for this call only.

        Innermost of all, so that what other packs' wrappers put into the options stands before we look.
        """
        options = {} if transformer_options is None else transformer_options
        # without a noise level nobody samples: some node looks at the bare UNet
        if sigmas_of(options) is not None:
            run = options.get(RUN) or Run()
            call = call_of(run, self.base, executor.original, x, timesteps, context, y, options)
            options = told_by_role(options, call.chunks)
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
