"""Perfusion's gated edit of keys and values (arXiv 2305.01644): a concept takes the place of its word's direction."""

import torch


def dual_inputs(inputs, metric):
    """(duals (c, D), energies (c,)) of inputs I (c, D) in the metric M (D, D), in float64.

    duals = I M; energies E_i = I_i M I_i; with G = I M Iᵀ the projection onto the span of the inputs is
    Pe = Iᵀ G⁻¹ (I M e).
    """
    inputs, metric = inputs.double(), metric.double()
    duals = inputs @ metric
    return duals, (duals * inputs).sum(1)


def projector(inputs, duals):
    """(c, D): rows R with Pe = Rᵀ (duals e), that is G⁻¹ I; equal inputs share their part."""
    return torch.linalg.pinv(duals @ inputs.double().T, hermitian=True) @ inputs.double()


def gates_of(similarities, energies, beta, tau):
    """sigmoid((s / E - beta) / tau) for s (b, T, c); energies, beta and tau (c,)."""
    return torch.sigmoid((similarities / energies - beta) / tau)


def without_concepts(rows, similarities, projecting, strength):
    """e - strength * Pe for rows e (b, T, D), s (b, T, c), projecting (c, D), strength (c,) of each concept."""
    return rows - (similarities * strength) @ projecting


def concept_outputs(gates, outputs, strength):
    """sum over concepts of strength * g * o*: gates (b, T, c), outputs (c, P, d) by position modulo P -> (b, T, d)."""
    tokens = torch.arange(gates.shape[1], device=gates.device) % outputs.shape[1]
    return torch.einsum("btc,ctd->btd", gates * strength, outputs[:, tokens])
