"""Swin-Tiny (arXiv 2103.14030) as a function of its weights: what NPNet's residual branch sees of a noise."""

import torch
import torch.nn.functional as F
from einops import rearrange

# Tokens of a window's side, and how far every second block moves its windows (Swin, section 3.2).
WINDOW, SHIFT = 7, 3
EPS = 1e-5
# What forbids attention between tokens that only rolling brought together.
APART = -100.0


def swin_features(pixels, weights):
    """Features (b, h, w, c), channels last, of pixels (b, 3, H, W); H and W are 7 * 4 * 2^(stages - 1), that is 224.

    weights: names below `swin.` of the published files (the layout of timm 0.9 and newer); the classifier is not read.
    """
    patch = weights["patch_embed.proj.weight"]
    x = rearrange(pixels, "b c (h p) (w q) -> b h w (c p q)", p=patch.shape[2], q=patch.shape[3])
    x = F.linear(x, patch.flatten(1), weights["patch_embed.proj.bias"])
    x = _norm(x, weights, "patch_embed.norm")
    for stage in range(count(weights, "layers.")):
        if stage > 0:
            x = _merged(x, weights, f"layers.{stage}.downsample")
        for block in range(count(weights, f"layers.{stage}.blocks.")):
            x = _block(x, weights, f"layers.{stage}.blocks.{block}", shifted=block % 2 == 1)
    return _norm(x, weights, "norm")


def count(names, prefix):
    """How many different numbers follow a prefix in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


def _block(x, weights, name, shifted):
    """x + attention(norm(x)), then x + mlp(norm(x)); x (b, h, w, c)."""
    x = x + _window_attention(_norm(x, weights, f"{name}.norm1"), weights, f"{name}.attn", shifted)
    hidden = F.gelu(_linear(_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1"))
    return x + _linear(hidden, weights, f"{name}.mlp.fc2")


def _window_attention(x, weights, name, shifted):
    """softmax(q k^T / sqrt(d) + bias + mask) v in each window of 7 x 7 tokens; x (b, h, w, c)."""
    batch, height, width = x.shape[:3]
    # where one window is the whole grid there is nothing to shift
    shift = SHIFT if shifted and min(height, width) > WINDOW else 0
    x = x.roll((-shift, -shift), (1, 2))
    x = rearrange(x, "b (y i) (x j) c -> (b y x) (i j) c", i=WINDOW, j=WINDOW)
    table = weights[f"{name}.relative_position_bias_table"]
    qkv = rearrange(_linear(x, weights, f"{name}.qkv"), "w n (t h d) -> t w h n d", t=3, h=table.shape[1])
    bias = _position_bias(table)
    if shift:
        mask = _shift_mask(height, width, x.device).repeat(batch, 1, 1)
        bias = bias + mask[:, None]
    out = F.scaled_dot_product_attention(*qkv, attn_mask=bias)
    out = _linear(rearrange(out, "w h n d -> w n (h d)"), weights, f"{name}.proj")
    out = rearrange(
        out, "(b y x) (i j) c -> b (y i) (x j) c", b=batch, y=height // WINDOW, x=width // WINDOW, i=WINDOW, j=WINDOW
    )
    return out.roll((shift, shift), (1, 2))


def _position_bias(table):
    """bias[h, i, j] = table[(yi - yj + 6) * 13 + (xi - xj + 6), h] for the tokens i, j of a window: (1, h, 49, 49)."""
    side = torch.arange(WINDOW, device=table.device)
    y, x = side.repeat_interleave(WINDOW), side.repeat(WINDOW)
    down, right = (t[:, None] - t[None, :] + WINDOW - 1 for t in (y, x))
    return table[down * (2 * WINDOW - 1) + right].permute(2, 0, 1)[None]


def _shift_mask(height, width, device):
    """(windows, 49, 49): -100 between tokens of a rolled grid that are no neighbours (cut at -7 and -3), else 0."""
    regions = torch.zeros(height, width, device=device)
    parts = (slice(0, -WINDOW), slice(-WINDOW, -SHIFT), slice(-SHIFT, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in parts for columns in parts):
        regions[rows, columns] = number
    regions = rearrange(regions, "(y i) (x j) -> (y x) (i j)", i=WINDOW, j=WINDOW)
    return (regions[:, :, None] != regions[:, None, :]) * APART


def _merged(x, weights, name):
    """Half the grid, twice the channels: 2 x 2 neighbours side by side (rows first), norm, linear; x (b, h, w, c)."""
    x = rearrange(x, "b (h i) (w j) c -> b h w (j i c)", i=2, j=2)
    return F.linear(_norm(x, weights, f"{name}.norm"), weights[f"{name}.reduction.weight"])


def _norm(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)


def _linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
