"""What the relatives of MRSA must cost at least, and their MODELs on a UNet without data; see flops.py."""

from contextlib import contextmanager

import torch
from bench.flops import text
from support.models import StubCLIP, StubVAE, execute

from pack.nodes.reference_attention import reference_only, reference_pass
from pack.nodes.reference_attention.dreamtuner_node import DreamTuner
from pack.nodes.reference_attention.reference_guidance_node import ReferenceGuidanceNode
from pack.nodes.reference_attention.reference_only_node import ReferenceOnlyNode
from pack.nodes.references.references_node import AddReference


@contextmanager
def watched_inside():
    """While it lasts, outputs are watched where a UNet without data does its work."""
    real = reference_pass.watched
    for module in (reference_pass, reference_only):
        module.watched = lambda unet, place, look: real(unet.inside[0], place, look)
    try:
        yield
    finally:
        for module in (reference_pass, reference_only):
            module.watched = real


def referring(model, kind, size, mask, technique, references=1, **inputs):
    """The MODEL with references of size x size pixels through the node of a technique; nothing is kept in a bank."""
    chain = ()
    for i in range(references):
        picture = torch.full((1, size, size, 3), i / 10)
        (chain,) = execute(AddReference, image=picture, prompt="a picture", mask=mask, references=chain)
    vae = StubVAE(model, torch.zeros(references, 4, size // 8, size // 8))
    inputs = {"vae": vae, "references": chain, "cache_mb": 0, **inputs}
    if technique == "dreamtuner":
        clip = StubCLIP({"a picture": tuple(prompt(kind)[0])})
        return execute(DreamTuner, model=model, clip=clip, **inputs)[0]
    return execute(ReferenceOnlyNode, model=model, **inputs)[0]


def prompt(kind):
    """A CONDITIONING that is not the negative one."""
    ((context, values),) = text(kind)
    return [[context + 1, values]]


def guided(model, **inputs):
    """The MODEL behind Reference Guidance."""
    return execute(ReferenceGuidanceNode, model=model, **inputs)[0]


def floor(cost, mask, technique, both=None, references=1, **settings):
    """FLOPs of a step with CFG: each reference once for each text beside which it is read, and the rows' look at it.

    cost: of all self-attentions; both: whether the negative's rows read references as well.
    """
    fidelity = settings.get("style_fidelity", 0.0)
    both = fidelity < 1 if both is None else both
    looks = (1 + both) * references * cost.attention(mask)
    passes = (1 + both) * references * cost.truncated
    # between 0 and 1 the negative's rows attend both with and without references
    again = cost.attention() if 0 < fidelity < 1 else 0
    return 2 * cost.plain + passes + looks + again
