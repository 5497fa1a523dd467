"""Damage to the contents of model files, by chance: names, tensors and values that no trainer writes."""

import torch

# Names that a file of the web may hold.
NAMES = [
    "",
    " ",
    ".",
    "..",
    "a" * 5000,
    "<img src=x onerror=alert(1)>",
    "k\n[ERROR] forged",
    "k\x1b[2J",
    "\u202eabc",
    "\x00",
    "__metadata__",
    "../../x",
    "alpha",
    "unet",
    "state_dict",
    "0",
    "\u732b",
]
DEPTH = 4
KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
         torch.int8, torch.complex64, torch.float8_e4m3fn]  # fmt: skip


def damaged(chance, contents, harmful):
    """A copy of nested dicts of tensors with one thing wrong; `harmful` would run code if it were unpickled."""
    contents = _copied(contents)
    place = chance.choice(list(_dicts(contents)))
    key = chance.choice(list(place)) if place else "new"
    chance.choice([_drop, _rename, _value, _tensor, _tensor, _tensor, _extra, _swap, _shared, _wrap])(
        chance, place, key, harmful
    )
    return contents


def _copied(contents, depth=0):
    # an earlier damage may have put a dict into itself
    inner = {key: value for key, value in contents.items() if isinstance(value, dict) and depth < DEPTH}
    return {**contents, **{key: _copied(value, depth + 1) for key, value in inner.items()}}


def _dicts(contents, depth=0):
    yield contents
    for value in contents.values():
        if isinstance(value, dict) and depth < DEPTH:
            yield from _dicts(value, depth + 1)


def _drop(chance, place, key, harmful):
    for one in [key, *chance.sample(list(place), chance.randrange(0, len(place) or 1))]:
        place.pop(one, None)


def _rename(chance, place, key, harmful):
    kept = place.pop(key, torch.ones(1))
    place[chance.choice([*NAMES, f"{key}x", f"module.{key}", f"model.{key}", key.upper(), f"{key}.{key}"])] = kept


def _value(chance, place, key, harmful):
    circle = {}
    circle["a"] = circle
    place[key] = chance.choice(
        [None, 3, 1.5, "text", [], [torch.ones(1)], {}, (), True, b"bytes", {"a": {"b": {}}}, circle,
         {1: torch.ones(1)}, harmful, torch.float32, torch.Size([1]), {"a": harmful}]
    )  # fmt: skip


def _tensor(chance, place, key, harmful):
    t = place.get(key)
    # an earlier damage may have left what cannot be worked with
    sound = isinstance(t, torch.Tensor) and t.dtype in KINDS and t.layout == torch.strided and t.device.type == "cpu"
    place[key] = odd_tensor(chance, t if sound and t.numel() < 10**6 else torch.ones(3, 4))


def _extra(chance, place, key, harmful):
    for _ in range(chance.choice([1, 1, 3, 300])):
        place[chance.choice(NAMES) + str(chance.randrange(1000))] = torch.ones(chance.randrange(4))


def _swap(chance, place, key, harmful):
    other = chance.choice(list(place)) if place else key
    if place:
        place[key], place[other] = place[other], place[key]


def _shared(chance, place, key, harmful):
    one = torch.ones(1000)
    for other in list(place):
        place[other] = one


def _wrap(chance, place, key, harmful):
    inner = dict(place)
    for _ in range(chance.choice([1, 2, 20, 200])):
        inner = {chance.choice(["state_dict", "params", "module", "x"]): inner}
    place.clear()
    place.update(inner)


def odd_tensor(chance, t):
    """A tensor as it is wrong in real life, or as somebody made it on purpose."""
    t = t.detach()
    choices = [
        lambda: t.flatten()[:1].reshape(()).clone() if t.numel() else torch.tensor(1.0),
        lambda: t.flatten().clone(),
        lambda: t[None].clone(),
        lambda: t.transpose(0, -1).contiguous() if t.ndim else t,
        lambda: torch.zeros(0),
        lambda: torch.zeros(0, *t.shape[1:]),
        lambda: torch.zeros(*t.shape[:-1], 0),
        lambda: torch.cat([t, t]) if t.ndim else t,
        lambda: t[: len(t) // 2].clone() if t.ndim else t,
        lambda: t.to(chance.choice(KINDS)),
        lambda: _with(chance, t, float("nan")),
        lambda: _with(chance, t, float("inf")),
        lambda: t * chance.choice([0.0, 1e30, -1e30, 1e-40, 1e4]),
        lambda: torch.zeros(1).expand(10**6, 10**6),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        lambda: torch.randn([chance.randrange(5) for _ in range(chance.randrange(6))]),
        lambda: torch.ones([1] * chance.choice([5, 20, 60])),
        lambda: torch.nn.Parameter(t.float()),
    ]
    return chance.choice(choices)()


def _with(chance, t, value):
    if not t.is_floating_point() or not t.numel():
        return torch.full((3,), value)
    t = t.clone()
    t.view(-1)[chance.randrange(t.numel())] = value
    return t
