"""Weight deltas in activation space: what an adapter adds to a layer's output, for groups of rows at once."""

import torch
import torch.nn.functional as F


def lowered(x, down):
    """x . down^T for k groups of vectors, in one product: x (k, m, i), down (k, r, i) -> (k, m, r).

    The first half of LoRA (arXiv 2106.09685, section 4.1); smaller ranks are padded with zeros.
    """
    return torch.bmm(x, down.mT)


def add_raised(y, hidden, up):
    """y + hidden . up^T, in place and in one product: y (k, m, o), hidden (k, m, r), up (k, o, r) with the scale in it.

    The second half of LoRA.
    """
    if torch.is_grad_enabled() and (y.requires_grad or hidden.requires_grad):
        return y.baddbmm_(hidden, up.mT)
    # the same in place, in the form that counters of FLOPs know; gradients are not taken through it
    return torch.baddbmm(y, hidden, up.mT, out=y)


def grouped_conv(x, down, up, **geometry):
    """LoRA of convolutions: a p x q convolution down, then 1 x 1 up.

    x (k, b, c, h, w), down (k, r, c, p, q), up (k, o, r) -> (k, b, o, h', w'); geometry: stride, padding, dilation of
    the layer. LoCon (LyCORIS, arXiv 2309.14859, section 3.1).
    """
    k, b, _, h, w = x.shape
    r = down.shape[1]
    if down.shape[-2:] == (1, 1) and tuple(geometry.get("stride", (1, 1))) == (1, 1) and not any(_padding(geometry)):
        hidden = torch.matmul(down.flatten(2)[:, None], x.flatten(3))
    else:
        # groups of rows become groups of channels, so that one convolution serves them all
        channels = x.transpose(0, 1).reshape(b, -1, h, w)
        hidden = F.conv2d(channels, down.flatten(0, 1), groups=k, **geometry)
        h, w = hidden.shape[-2:]
        hidden = hidden.reshape(b, k, r, h * w).transpose(0, 1)
    return torch.matmul(up[:, None], hidden).unflatten(-1, (h, w))


def kronecker_linear(x, left, right):
    """x . kron(left, right)^T without forming the product.

    x (..., i1 * i2), left (o1, i1), right (o2, i2) -> (..., o1 * o2). LoKr (arXiv 2309.14859, section 3.1).
    """
    hidden = F.linear(x.unflatten(-1, (left.shape[1], right.shape[1])), right)
    return torch.matmul(left, hidden).flatten(-2)


def crossed_linear(x, down, up):
    """x . W^T with W[p * a1 + q, i * b2 + j] = up[p, j] down[i, q], without forming it.

    x (..., a2 * b2), down (a2, a1), up (b1, b2) -> (..., b1 * a1). KronA as DiffuseKronA writes it (arXiv 2402.17412).
    """
    hidden = F.linear(x.unflatten(-1, (down.shape[0], up.shape[1])), up)
    return torch.matmul(hidden.mT, down).flatten(-2)


def crossed_weight(down, up):
    """That W (b1 * a1, a2 * b2)."""
    return torch.einsum("i q, p j -> p q i j", down, up).flatten(2).flatten(0, 1)


def kronecker_conv(x, left, right, **geometry):
    """The same for convolutions: x (b, i1 * i2, h, w), left (o1, i1), right (o2, i2, p, q) -> (b, o1 * o2, h', w')."""
    b, _, h, w = x.shape
    hidden = F.conv2d(x.reshape(b * left.shape[1], right.shape[1], h, w), right, **geometry)
    h, w = hidden.shape[-2:]
    mixed = torch.matmul(left, hidden.reshape(b, left.shape[1], -1))
    return mixed.reshape(b, -1, h, w)


def hadamard_weight(a, b, c, d):
    """(a . b) * (c . d), elementwise: a, c (o, r), b, d (r, n) -> (o, n). LoHa (arXiv 2108.06098, section 2.2)."""
    return (a @ b) * (c @ d)


def hadamard_factors(a, b, c, d):
    """The same weight as one low-rank product: (down (r * s, n), up (o, r * s)), by Khatri-Rao products of the factors.

    a (o, r), b (r, n), c (o, s), d (s, n); exact, as (ab * cd)[x, y] = sum over p, q of a[x,p] c[x,q] b[p,y] d[q,y].
    """
    up = (a[:, :, None] * c[:, None, :]).flatten(1)
    down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)
    return down, up


def _padding(geometry):
    padding = geometry.get("padding", (0, 0))
    return padding if isinstance(padding, tuple | list) else (padding,)
