"""NPNet, the noise prompt network of Golden Noise (arXiv 2411.09502): start noise and prompt -> golden noise.

Weights are a dict of tensors under the published names; all sizes are read from them.
"""

from .fresh import fresh_weights
from .network import golden_noise, parts_of_golden, singular_vectors, spectrum
from .prompts import TOKENS, for_batch, with_long_prompt
from .redenoise import redenoised
from .shapes import IGNORED, NPNetSizes, npnet_shapes, npnet_sizes
from .swin import swin_features
from .tiles import canvas_size, centre, tiled, window_starts

__all__ = [
    "IGNORED",
    "TOKENS",
    "NPNetSizes",
    "canvas_size",
    "centre",
    "npnet_shapes",
    "for_batch",
    "fresh_weights",
    "golden_noise",
    "parts_of_golden",
    "redenoised",
    "singular_vectors",
    "npnet_sizes",
    "spectrum",
    "swin_features",
    "tiled",
    "window_starts",
    "with_long_prompt",
]
