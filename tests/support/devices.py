"""Several devices without a GPU: two keys for one CPU, and two cards whose tensors say where they are.

Two keys let the host's engine really run, with a thread and a set of weights for each. Tensors on cards refuse to meet
those of another one, and compute on the CPU.
"""

from contextlib import contextmanager, nullcontext

import comfy.model_management as mm
import pytest
import torch
from support.models import sample, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

try:
    from comfy.multigpu import MultiGPUThreadPool
    from comfy_extras import nodes_multigpu as nodes
except ImportError:
    MultiGPUThreadPool = nodes = None

# unequal as keys, while their tensors mix
CPUS = [torch.device("cpu"), torch.device("cpu", 0)]
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

with_engine = pytest.mark.skipif(MultiGPUThreadPool is None, reason="this host runs a model on one device")
with_cards = pytest.mark.skipif(
    MultiGPUThreadPool is None or TORCH < (2, 10), reason="emulated cards need torch 2.10 and the host's engine"
)
# the host's nodes that send a part of a checkpoint to another device: MODEL, CLIP and VAE
SELECT = nodes and (nodes.SelectModelDeviceNode, nodes.SelectCLIPDeviceNode, nodes.SelectVAEDeviceNode)
# one CPU under two keys, and two cards
PLACES = ["two keys", pytest.param("two cards", marks=[with_cards, pytest.mark.slow])]


def two_devices(monkeypatch, devices=CPUS):
    # the host's node stops at models that have died meanwhile
    mm.current_loaded_models.clear()
    monkeypatch.setattr(mm, "get_all_torch_devices", lambda exclude_current=False: devices[exclude_current:])


def at(place, monkeypatch):
    """A context in which the host has two devices."""
    return two_cards(monkeypatch) if place == "two cards" else nullcontext(two_devices(monkeypatch))


def model_with_factory(*args, **kwargs):
    """A tiny MODEL that the host can load again for another device, as a checkpoint loader gives it."""
    model = tiny_model(*args, **kwargs)
    model.cached_patcher_init = (lambda *_, **__: tiny_model(*args, **kwargs), ())
    return model


def split(model, devices=2):
    """The MODEL after the host's MultiGPU CFG Split."""
    return nodes.MultiGPUCFGSplitNode.execute(model, devices).result[0]


def moved(model):
    """The MODEL after the host's Select Model Device, on the second card; inside `selectable` alone."""
    return SELECT[0].execute(model, "gpu:1").result[0]


def results(model, *texts, count=20, **kwargs):
    """The distinct results of so many runs."""
    found = []
    for _ in range(count):
        one = sample(model, *texts, **kwargs)
        if not any(torch.equal(one, other) for other in found):
            found.append(one)
    return found


class OnCard(torch.Tensor):
    """A tensor that says it is on a card; `held` is its content, on the CPU."""

    @staticmethod
    def __new__(cls, held, card):
        form = {"strides": held.stride(), "dtype": held.dtype, "device": card}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **form)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})

    def tolist(self):
        return self.held.tolist()

    def record_stream(self, stream):
        """Nothing that a copy holds is reused here."""


class _Cards(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


# shapes of the tensors that have gone from one card to the other
_CROSSED = []
# of each copy from main memory to a card: (bytes, whether the process waits for it)
_SENT = []
# the stream (support/streams.py) that is given copies at the moment, if one is
ASIDE = []
# these move data between devices
_FREE = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_")


def _computed(function, args, kwargs):
    name = function._schema.name
    flat, spec = tree_flatten((args, kwargs))
    tensors = [t for t in flat if isinstance(t, torch.Tensor)]
    places = {t.device for t in tensors if isinstance(t, OnCard) or t.dim()}
    if len(places) > 1 and name not in _FREE:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {places}")
    cards = [t.device for t in tensors if isinstance(t, OnCard)]
    standing = tensors[0].device if name in _FREE else cards[0] if cards else CPUS[0]
    place = torch.device(kwargs.get("device") or standing)
    if name in ("aten::_to_copy", "aten::copy_") and place.type != "cpu":
        source = tensors[-1]
        if {*cards} - {place}:
            _CROSSED.append(tuple(source.shape))
        if not isinstance(source, OnCard):
            waits = not (kwargs.get("non_blocking") or name == "aten::copy_" and args[2:3] == (True,))
            _SENT.append((source.nbytes, waits))
    known = {id(t.held): t for t in tensors if isinstance(t, OnCard)}
    into = args[0] if name == "aten::copy_" else None
    args, kwargs = tree_unflatten([t.held if isinstance(t, OnCard) else t for t in flat], spec)
    kwargs |= {"device": CPUS[0]} if "device" in kwargs else {}
    if ASIDE and into is not None:
        ASIDE[-1].give(function, args, kwargs)
        return into

    def placed(t):
        if not isinstance(t, torch.Tensor) or place.type == "cpu":
            return t
        return known[id(t)] if id(t) in known else OnCard(t, place)

    return tree_map(placed, function(*args, **kwargs))


def with_crossings(function, *args, **kwargs):
    """(what the function gives, how many tensors it sends from one card to the other)."""
    _CROSSED.clear()
    return function(*args, **kwargs), len(_CROSSED)


def with_sent(function, *args, **kwargs):
    """(what the function gives, (bytes, whether the process waits) of each copy from main memory to a card)."""
    _SENT.clear()
    return function(*args, **kwargs), list(_SENT)


def cards():
    """The two cards. To be called before the first gradient of a process, which knows the devices of that moment."""
    backend = "maya"
    if torch._C._get_privateuse1_backend_name() != backend:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        # once per process
        _setup_privateuseone_for_python_backend(backend)
        # a gradient's checkpoints ask each device that there is
        getattr(torch, backend).get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    return [torch.device(backend, number) for number in range(2)]


@contextmanager
def two_cards(monkeypatch):
    """Inside, the host computes on the first of two cards, and may use the other. Gradients work on the first alone."""
    found = cards()
    two_devices(monkeypatch, found)
    plenty = lambda *args, **more: (1e12, 1e12) if more or len(args) > 1 else 1e12  # noqa: E731
    for name in ("get_free_memory", "get_total_memory"):
        monkeypatch.setattr(mm, name, plenty)
    for name in ("set_torch_device", "soft_empty_cache"):
        monkeypatch.setattr(mm, name, lambda *args: None)
    monkeypatch.setattr(mm, "get_torch_device", lambda: found[0])
    tensor, loop = torch.tensor, MultiGPUThreadPool._worker_loop
    # these two go past a dispatch mode
    monkeypatch.setattr(torch, "tensor", lambda data, *a, device=None, **more: tensor(data, *a, **more).to(device))
    torch.__future__.set_overwrite_module_params_on_conversion(True)

    def in_thread(*args):
        with _Cards():
            loop(*args)

    monkeypatch.setattr(MultiGPUThreadPool, "_worker_loop", in_thread)
    try:
        with torch.inference_mode(False), torch.no_grad(), _Cards():
            yield found
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@contextmanager
def selectable(monkeypatch):
    """Two cards, of which `moved` selects the second. Yields a function that makes it the process's own one."""
    with two_cards(monkeypatch) as found:
        monkeypatch.setattr(mm, "resolve_gpu_device_option", lambda device: found[1])
        yield lambda: monkeypatch.setattr(mm, "get_torch_device", lambda: found[1])


if MultiGPUThreadPool is not None and TORCH >= (2, 10):
    cards()
