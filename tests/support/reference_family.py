"""The relatives of MRSA on the tiny models, as users connect them."""

from support.models import execute
from support.references import PixelVAE, TinyClip, references

from pack.nodes.reference_attention.dreamtuner_node import DreamTuner
from pack.nodes.reference_attention.reference_guidance_node import ReferenceGuidanceNode
from pack.nodes.reference_attention.reference_only_node import ReferenceOnlyNode


def dreamtuner(model, chain=None, **inputs):
    chain = references(1) if chain is None else chain
    inputs = {"clip": TinyClip(model), "vae": PixelVAE(), "references": chain, **inputs}
    return execute(DreamTuner, model=model, **inputs)[0]


def reference_only(model, chain=None, **inputs):
    chain = references(1) if chain is None else chain
    return execute(ReferenceOnlyNode, model=model, **{"vae": PixelVAE(), "references": chain, **inputs})[0]


def guided(model, **inputs):
    return execute(ReferenceGuidanceNode, model=model, **inputs)[0]


def guided_dreamtuner(model, **inputs):
    return guided(dreamtuner(model), reference_scale=3.0, **inputs)
