"""Stand-ins for packages that ComfyUI imports and a measurement does not use, on a machine that has not got them."""

import importlib.util
import json
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace

# Top-level names that may stand empty. Real packages are taken where there are any.
NAMES = (
    "PIL", "aiohttp", "av", "blake3", "comfy_aimdo", "comfy_kitchen", "cv2", "pydantic", "pytest", "scipy",
    "sentencepiece", "tokenizers", "torchaudio", "torchsde", "torchvision", "transformers", "yaml",
)  # fmt: skip
# Without it the host does without quantized weights.
MISSING = ("comfy_kitchen.tensor",)


class _Name(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


class _Empty(metaclass=_Name):
    """Can be a base, called, and put before a function, which it leaves as it is."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return args[0] if args else self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _empty(name)


def _empty(name):
    return _Name(name, (_Empty,), {})


class _Module(ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = _empty(name)
        setattr(self, name, made)
        return made


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in NAMES or name in MISSING:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


def put_in_place():
    """The names of the packages that stand-ins are there for from now on."""
    stood_in = [name for name in (*NAMES, "safetensors", "psutil") if importlib.util.find_spec(name) is None]
    # asked last: whatever is there is found first
    sys.meta_path.append(_Finder())
    if "safetensors" in stood_in:
        sys.modules |= _safetensors()
    if "psutil" in stood_in:
        sys.modules["psutil"] = _psutil()
    return stood_in


def _psutil():
    module = ModuleType("psutil")
    pages = {name: os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES", "SC_PAGE_SIZE")}
    total, free = (pages[name] * pages["SC_PAGE_SIZE"] for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    module.virtual_memory = lambda: SimpleNamespace(total=total, available=free)
    module.swap_memory = lambda: SimpleNamespace(percent=0.0)
    module.Process = lambda *args: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0))
    return module


class _File:
    """What safe_open gives: reads the tensors of one file."""

    def __init__(self, path, framework="pt", device="cpu"):
        self.path = path

    def __enter__(self):
        with Path(self.path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._header = json.loads(file.read(length))
            self._data = bytearray(file.read())
        self._metadata = self._header.pop("__metadata__", None)
        return self

    def __exit__(self, *error):
        pass

    def keys(self):
        return list(self._header)

    def metadata(self):
        return self._metadata

    def get_tensor(self, name):
        import torch

        dtypes = {
            "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
            "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
            "BOOL": torch.bool,
        }  # fmt: skip
        about = self._header[name]
        dtype, shape, start = dtypes[about["dtype"]], about["shape"], about["data_offsets"][0]
        if not prod(shape):
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._data, dtype=dtype, count=prod(shape), offset=start).reshape(shape).clone()


def _safetensors():
    package, for_torch = ModuleType("safetensors"), ModuleType("safetensors.torch")

    class SafetensorError(Exception):
        pass

    def nothing(*args, **kwargs):
        raise OSError("this machine has no safetensors")

    package.__path__ = ()
    package.safe_open, package.SafetensorError, package.torch = _File, SafetensorError, for_torch
    package.serialize_file = nothing
    for name in ("load_file", "load", "save_file", "save"):
        setattr(for_torch, name, nothing)
    return {"safetensors": package, "safetensors.torch": for_torch}
