"""Golden noise without a network: one denoising step with strong guidance, one step back with weak guidance."""

import math


def redenoised(noise, eps, sigma0, sigma1):
    """n + a (sigma0 - sigma1) (eps(x1, sigma1) - eps(n, sigma0)), a = 1 / sqrt(1 + sigma0^2); arXiv 2411.09502, 3.2.

    noise n (b, c, h, w) of unit variance; eps(x, sigma, back): the noise that the model predicts in x = x0 + sigma * n,
    with the guidance of the first step, or of the step back. The two Euler steps go sigma0 -> sigma1 -> sigma0.
    """
    scale = math.sqrt(1 + sigma0**2)
    x0 = noise * scale
    there = eps(x0, sigma0, False)
    x1 = x0 + (sigma1 - sigma0) * there
    back = eps(x1, sigma1, True)
    return noise + (sigma0 - sigma1) / scale * (back - there)
