"""The noise prompt network: golden = SVD branch + tanh(alpha / 2) * text branch + beta * residual branch.

Everything runs in float32 and as in inference (no stochastic depth), which the published script forgets to switch on.
Source: arXiv 2411.09502, section 3, and the sizes of the published weights.
"""

import torch
import torch.nn.functional as F
from einops import rearrange

from .swin import swin_features

SVD_HEADS = 8
# Pixels of the residual branch's picture.
PICTURE = 224


def golden_noise(noise, prompt, weights):
    """The golden noise (b, 4, R, R) float32 of a start noise (b, 4, R, R) of unit variance.

    prompt (b or 1, 77, D); weights: {published name: tensor}, on the device where the work is done; R is their size.
    """
    device = weights["alpha"].device
    return parts_of_golden(noise, prompt, weights, singular_vectors(noise.to(device)))["golden"]


def parts_of_golden(noise, prompt, weights, vectors):
    """{"golden", "svd", "text", "residual"}, each (b, 4, R, R): the golden noise and its branches.

    vectors: u (b, 2R, 2R), s (b, 2R), vh (b, 2R, 2R) of `singular_vectors`.
    """
    noise, prompt = (t.to(weights["alpha"].device, torch.float32) for t in (noise, prompt))
    text = text_branch(noise, prompt, weights)
    residual = residual_branch(noise + text, weights)
    u, s, vh = vectors
    svd = _from_square((u * spectrum(u, s, vh, weights)[:, None, :]) @ vh)
    # tanh(a / 2) = 2 sigmoid(a) - 1
    golden = svd + torch.tanh(weights["alpha"] / 2) * text + weights["beta"] * residual
    return {"golden": golden, "svd": svd, "text": text, "residual": residual}


def text_branch(noise, prompt, weights):
    """groupnorm(n) * (1 + scale) + shift, (b, 4, R, R): the prompt enters as 8 numbers, scale and shift per channel.

    noise (b, 4, R, R); prompt (b or 1, 77, D), flattened token by token.
    """
    numbers = F.linear(prompt.flatten(1), weights["embeeding.linear.weight"], weights["embeeding.linear.bias"])
    scale, shift = numbers[..., None, None].chunk(2, dim=1)
    return F.group_norm(noise, 1, eps=1e-6) * (1 + scale) + shift


def residual_branch(x, weights):
    """up(nearest(swin(nearest(down(x))))), (b, 4, R, R), with 1 x 1 convolutions down and up.

    The features (b, 7, 7, 768) are read as (b, channel, row, column) although their channels come last: the published
    weights were trained so. Hence result[b, c, y, x] = bias_c + sum_r up[c, r] * f[b, r, floor(7y/R), floor(768x/R)].
    """
    below = "unet_embedding."
    swin = {name[len(below) + 5 :]: weight for name, weight in weights.items() if name.startswith(below + "swin.")}
    small = F.interpolate(x, size=(PICTURE, PICTURE), mode="nearest")
    features = swin_features(_pointwise(small, weights, below + "downconv"), swin)
    return _pointwise(F.interpolate(features, size=x.shape[-2:], mode="nearest"), weights, below + "upconv")


def singular_vectors(noise):
    """u (b, 2R, 2R), s (b, 2R), vh (b, 2R, 2R) of a noise (b, 4, R, R) laid out as one square, on its device.

    Always found in float32 on the CPU: the network depends on the signs of the vectors, and a GPU chooses others.
    """
    square = rearrange(noise.float().cpu(), "b (a c) h w -> b (a h) (c w)", a=2, c=2)
    return tuple(t.to(noise.device) for t in torch.linalg.svd(square))


def spectrum(u, s, vh, weights):
    """The corrected singular values s2 (b, 2R) = s + mlp4(mean over tokens of attention(tokens)).

    Token i is mlp1(i-th left vector) + mlp2(i-th right vector) + mlp3(s), the last the same for all.
    """
    below = "unet_svd."
    tokens = _mlp(u.mT, weights, below + "mlp1") + _mlp(vh, weights, below + "mlp2")
    tokens = tokens + _linear(s, weights, below + "mlp3.0")[:, None]
    qkv = F.linear(tokens, weights[below + "attention.qkv.weight"])
    qkv = rearrange(qkv, "b n (t h d) -> t b h n d", t=3, h=SVD_HEADS)
    out = rearrange(F.scaled_dot_product_attention(*qkv), "b h n d -> b n (h d)")
    # a mean commutes with a linear map
    out = _linear(out.mean(1), weights, below + "attention.proj")
    return _mlp(out, weights, below + "mlp4") + s


def _from_square(square):
    return rearrange(square, "b (a h) (c w) -> b (a c) h w", a=2, c=2)


def _mlp(x, weights, name):
    return _linear(F.relu(_linear(x, weights, f"{name}.0")), weights, f"{name}.2")


def _linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _pointwise(x, weights, name):
    """A 1 x 1 convolution as a matrix product, which no GPU rounds to ten bits unasked."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
