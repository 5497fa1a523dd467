"""ProSpect's ten rows of a word out of its one learned embedding (arXiv 2305.16225)."""

from torch.nn.functional import gelu, layer_norm, linear


def stage_rows(weights, start):
    """(10, n) by rising timesteps, for an embedding (1, n) and the weights of the block by their names.

    x1 = A1(LN1 e) + e, x2 = A2(e) + x1, [y, g] = Wp LN3(x2) + bp, rows = Wf (y * gelu(g)) + bf. An attention over a
    single token is its value: A(c) = Wout Wv c + bout.
    """

    def normed(x, name):
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attended(x, name):
        value = linear(x, weights[f"{name}.to_v.weight"])
        return linear(value, weights[f"{name}.to_out.0.weight"], weights[f"{name}.to_out.0.bias"])

    x = attended(normed(start, "norm1"), "attn1") + start
    x = attended(start, "attn2") + x
    y, gate = linear(normed(x, "norm3"), weights["ff.net.0.proj.weight"], weights["ff.net.0.proj.bias"]).chunk(2, -1)
    rows = linear(y * gelu(gate), weights["ff.net.2.weight"], weights["ff.net.2.bias"])
    return rows.reshape(-1, start.shape[-1])
