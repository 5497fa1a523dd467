"""What a run leaves for a node that shows it, kept until a few runs later."""

import weakref

import torch

from .content_keys import digest

# A prompt may sample twice with one MODEL (a second pass at a larger size) before its record is shown.
KEPT_RUNS = 4

# {technique: [(hash of the result, record), ...]}, the last one last
_KEPT = weakref.WeakKeyDictionary()


def keep_record(technique, latents, record):
    """Notes what a run of the technique that ended with these latents (b, C, h, w) has to show."""
    result = _result(latents)
    kept = [one for one in _KEPT.get(technique, ()) if one[0] != result]
    _KEPT[technique] = (*kept, (result, record))[-KEPT_RUNS:]


def record_of(technique, latents):
    """The record of the run that ended with these latents, None if it is not (any more) known."""
    result = _result(latents)
    return next((record for known, record in _KEPT.get(technique, ()) if known == result), None)


def latest_record(technique):
    """The record of the technique's last run, None before the first."""
    kept = _KEPT.get(technique)
    return kept[-1][1] if kept else None


def _result(latents):
    # the host may hand a run's result on in half precision (--fp16-intermediates)
    return digest(latents.detach().to("cpu", torch.float16))
