"""Which of the host's handles on a network is the one that it has loaded."""

import comfy.model_management as mm


def loaded_patcher(network):
    """The ModelPatcher with whose patches a network is loaded at the moment; None if it is not loaded."""
    # None: gone in the meantime
    handles = (loaded.model for loaded in mm.current_loaded_models)
    return next((one for one in handles if one is not None and one.model is network), None)
