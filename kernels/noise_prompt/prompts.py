"""Prompts of several texts and of more than 77 tokens for a network that knows one part of 77."""

import torch

# The length of a text encoder's part, on which the network was trained.
TOKENS = 77


def for_batch(prompt, batch):
    """Prompts (p, n, D) for `batch` noises: one serves all, several are repeated in turn or cut."""
    if prompt.shape[0] in (1, batch):
        return prompt
    return prompt[torch.arange(batch) % prompt.shape[0]]


def with_long_prompt(noise, prompt, network, how):
    """The golden noise for a prompt (p, 77k, D) of k parts; network(noise, part) knows one of them.

    "truncate": the first part; "average": the mean of the parts' golden noises; "recurse": each part improves what
    the part before made (its changes add up k times).
    """
    parts = prompt.split(TOKENS, dim=1)
    if how == "truncate":
        return network(noise, parts[0])
    if how == "average":
        return sum(network(noise, part) for part in parts) / len(parts)
    for part in parts:
        noise = network(noise, part)
    return noise
