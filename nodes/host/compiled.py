"""torch.compile: while techniques of ours are in a UNet, it runs as it was written.

The host's compile node drops every guard on transformer options. What we put there is baked into the compiled graph or
missing from it: wrong pictures, and graphs that later runs without us would get too.
"""

from contextlib import contextmanager
from threading import Lock

import torch

from .calls import runs_compiled
from .messages import input_error, warn_user

_lock, _inside = Lock(), []


@contextmanager
def uncompiled():
    """Inside, compiled functions and modules run as they were written, and nothing is compiled."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        yield
        return
    # the stance is one for all threads: the last one out restores it
    with _lock:
        _inside.append(set_stance("force_eager") if not _inside else _inside[0])
    try:
        yield
    finally:
        with _lock:
            stance = _inside.pop()
            if not _inside:
                stance.__exit__(None, None, None)


def tell_of_compiling(model):
    """Says on the node that a MODEL with torch.compile on it runs uncompiled.

    Raises ValueError where this torch (before 2.6) has no way to do so.
    """
    if not runs_compiled(model):
        return
    if not hasattr(torch.compiler, "set_stance"):
        raise input_error(
            f"this model is compiled (torch.compile), and PyTorch {torch.__version__} cannot run it uncompiled where "
            "nodes of this pack need that; remove the compile node, or update PyTorch to 2.6 or later"
        )
    warn_user(
        "torch.compile is off in this run: nodes of this pack change the UNet while it runs, which a compiled one "
        "would not notice; the compile node does nothing here and can be removed"
    )
