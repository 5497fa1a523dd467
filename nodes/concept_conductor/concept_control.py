"""What a ControlNet adds to the concepts' rows: it sees each path's own prompt, as in a run of that path alone."""

import torch

from ..host.calls import sigmas_of
from ..host.rows import entry_of
from ..host.unet_inputs import input_root


def concept_control(call, standing, x, batch, many, options):
    """The ControlNet's tensors for the rows of `many` paths, in lists of their own; None without a ControlNet.

    standing: {slot: [tensor (rows or 1, c, h, w) or None, ...]} for the rows of the call, which are not touched; x
    (rows, C, h, w): the call's input of the UNet; batch: the TextBatch of the paths' rows. Where nobody knows where the
    tensors came from, the paths take those of the image's rows.
    """
    if standing is None:
        return None
    conds = call.run.conds()
    entries = [entry_of(chunk, conds) for chunk in call.chunks]
    net = next((entry["control"] for entry in entries if entry and entry.get("control") is not None), None)
    if net is None or sigmas_of(options) is None:
        return {name: [_spread(t, many) for t in tensors] for name, tensors in standing.items()}
    if hasattr(net, "get_instance_for_device"):
        net = net.get_instance_for_device(x.device)
    rows = many * x.shape[0]
    channels = call.base.latent_format.latent_channels
    sigma = torch.full((1,), call.moment.sigma, device=x.device)
    # the sampler's own units, as the host gives them
    latents = (x[:, :channels].float() * input_root(call.base.model_sampling, sigma)).repeat(many, 1, 1, 1)
    texts = {"c_crossattn": batch.context} | ({"y": batch.y} if batch.y is not None else {})
    made = net.get_control(latents, sigma.expand(rows), texts, many * len(call.chunks), options)
    return {name: [_rows(t, rows) for t in tensors] for name, tensors in made.items()} if made else None


def joined_control(image, concepts, rows, of_concepts):
    """{slot: [tensor (rows + of_concepts, c, h, w), ...]}: the image's rows and, behind them, those of the concepts."""
    if image is None or concepts is None:
        return None
    return {
        name: [
            None if first is None or second is None else torch.cat([_rows(first, rows), _rows(second, of_concepts)])
            for first, second in zip(tensors, concepts[name], strict=True)
        ]
        for name, tensors in image.items()
    }


def _rows(tensor, count):
    """A tensor for so many rows: some adapters keep those of as many as they saw first, pictures last."""
    if tensor is None or len(tensor) == count or count % len(tensor):
        return tensor
    return tensor.expand(count, -1, -1, -1) if len(tensor) == 1 else tensor.repeat(count // len(tensor), 1, 1, 1)


def _spread(tensor, times):
    return tensor if tensor is None or tensor.shape[0] == 1 else torch.cat([tensor] * times)
