"""Whether other packs stand between the prompts of a run and its UNet, where they may change what the rows read."""

from comfy.patcher_extension import WrappersMP

# With these words the keys of all wrappers of ours begin; the host's compiling reads no text.
_NO_WRITERS = ("personalization", "torch.compile")
_BETWEEN = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
# The same before there were wrappers, in a MODEL's options.
_OLDER = ("model_function_wrapper", "sampler_calc_cond_batch_function")


def may_be_rewritten(options, model_options):
    """Whether rows may read another text at another step than the guider's conditionings say.

    options: the transformer options of a call; model_options: those of the guider's MODEL, {} without one.
    """
    wrappers = options.get("wrappers", {})
    keys = (key for kind in _BETWEEN for key, several in wrappers.get(kind, {}).items() if several)
    return any(not str(key).startswith(_NO_WRITERS) for key in keys) or any(map(model_options.get, _OLDER))
