"""Prompts of several texts and of more than 77 tokens for a network that knows one chunk of 77."""

import torch

# The length of a text encoder's chunk, on which the network was trained.
TOKENS = 77


def for_batch(prompt, batch):
    """Prompts (p, n, D) for `batch` noises: one serves all, several are repeated in turn or cut."""
    if prompt.shape[0] in (1, batch):
        return prompt
    return prompt[torch.arange(batch) % prompt.shape[0]]


def with_long_prompt(noise, prompt, network, how):
    """The golden noise for a prompt (p, 77k, D) of k chunks; network(noise, chunk) knows one of them.

    "truncate": the first chunk; "average": the mean of the chunks' golden noises; "recurse": each chunk improves what
    the chunk before made (its changes add up k times).
    """
    chunks = prompt.split(TOKENS, dim=1)
    if how == "truncate":
        return network(noise, chunks[0])
    if how == "average":
        return sum(network(noise, chunk) for chunk in chunks) / len(chunks)
    for chunk in chunks:
        noise = network(noise, chunk)
    return noise
