"""Adapters per row: the rows of one batch run through different LoRAs, and no weight is touched."""

from contextlib import contextmanager

from ..host.bare_unet import names_now
from ..host.devices import own_of
from ..host.messages import log_warning
from ..host.unet_inputs import compute_dtype
from ..host.weight_patching import fine
from .adapters_patcher import adapters_patcher
from .concept_deltas import layers_of_model
from .layer_deltas import LayerDeltas
from .row_groups import RowGroups
from .shared_inputs import Hidden, shared_inputs


class RowAdapters:
    """The deltas of several paths, ready for the UNet of one base MODEL. Path 0 is the base, path i has deltas[i - 1].

    `models()` belongs into the sampled MODEL's additional models, so that the host loads the adapters with it.
    """

    def __init__(self, base, deltas, label="adapters per row"):
        """deltas: one Deltas per path, empty ones allowed; label: stands before messages.

        Raises ValueError for deltas that need a forward of their own: their rows would be wrong without a word.
        """
        for number, one in enumerate(deltas, 1):
            if one.needs_own_forward:
                raise ValueError(f"path {number} cannot share a batch: {', '.join(one.needs_own_forward)}")
        layers = layers_of_model(base)
        names = dict.fromkeys(name for one in deltas for name in one.parts)
        dtype = fine(compute_dtype(base.model))
        self.paths = len(deltas)
        self._layers = {
            name: LayerDeltas(layer, {i: one.parts.get(name, ()) for i, one in enumerate(deltas, 1)}, dtype, label)
            for name, layer in ((name, layers[name]) for name in names)
        }
        self._shared = shared_inputs(self._layers)
        self._patcher = adapters_patcher(base, self._layers)

    def models(self):
        """The host's handle on the adapters: a list for set_additional_models."""
        return [self._patcher] if self._layers else []

    @contextmanager
    def active(self, unet, path_of_rows, running=None, tell=log_warning):
        """Inside, a call of the UNet adds each path's deltas to its rows; afterwards nothing of it is left.

        unet: the host's UNet that is called; path_of_rows: the path of each row of the batch (list or tensor); running:
        the host's handle on the model that is called, which knows the adapters on its device. Only the affected layers
        are touched, and none if all rows are the base's. Enter it around the one call: a pass over other rows inside it
        (references) would take these for its own. A technique that ends rows early inside keeps the first ones. Hooks
        of others on a layer see its sums. tell: where a sentence for the user goes.
        """
        groups = RowGroups(path_of_rows, self.paths)
        handles = []
        try:
            if groups.paths:
                copies, names = own_of(running, self._patcher).model.children(), names_now(running)
                copies = dict(zip(self._layers, copies, strict=True))
                hidden = {one: Hidden(one, copies[one.leader]) for one in self._shared.values()}
                for name, deltas in self._layers.items():
                    if deltas.paths & groups.paths:
                        # before the hooks of others, which then see what the layer gives
                        layer = unet.get_submodule(names.get(name, name))
                        hook = deltas.hook(groups, copies[name], tell, hidden.get(self._shared.get(name)))
                        handles.append(layer.register_forward_hook(hook, prepend=True))
            yield
        finally:
            for handle in handles:
                handle.remove()
