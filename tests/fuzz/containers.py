"""Damage to the bytes of model files, by chance: to the container, the table of contents, the pickle, or anywhere."""

import io
import json
import pickle
import pickletools
import struct
import zipfile
import zlib

import torch
from safetensors.torch import save


def written(chance, contents, path):
    """Writes contents in one of the forms that trainers use; safetensors where they can be written so."""
    table = path.suffix in (".safetensors", ".sft")
    # a pickle under a safetensors name is refused for its name alone
    form = "safetensors" if table and chance.random() < 0.9 else chance.choice(["zip", "zip", "legacy", "pickle"])
    flat = dict(_flat(contents)) if form == "safetensors" else None
    if flat is not None:
        try:
            path.write_bytes(save(flat, chance.choice([None, {"a": "b"}])))
            return
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, UnicodeError):
            form = "zip"
    try:
        if form == "pickle":
            path.write_bytes(pickle.dumps(contents, protocol=chance.randrange(6)))
        else:
            torch.save(contents, path, _use_new_zipfile_serialization=form == "zip")
    except (RuntimeError, NotImplementedError, ValueError, RecursionError, TypeError, pickle.PicklingError):
        # what the library itself does not write
        torch.save({"a": torch.ones(2)}, path)


def spoilt(chance, path, marker):
    """Damages a written file in place; planted code would make the folder `marker`."""
    content = path.read_bytes()
    try:
        if content[:2] == b"PK" and chance.random() < 0.6:
            content = _zip(chance, content, marker)
        elif content[8:9] == b"{" and chance.random() < 0.6:
            content = _table(chance, content)
        elif content[:1] == b"\x80" and chance.random() < 0.5:
            content = _planted(chance, content, marker)
        else:
            content = _bytes(chance, content)
    except (ValueError, LookupError, RuntimeError, NotImplementedError, struct.error, zlib.error, zipfile.BadZipFile):
        # what is damaged so far that it has no parts any more
        content = _bytes(chance, content)
    path.write_bytes(content)


def _flat(contents, prefix="", depth=0):
    for key, value in contents.items():
        if isinstance(value, dict) and depth < 8:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            # one storage for each name, as the library wants it
            yield f"{prefix}{key}", value.detach().clone().contiguous() if value.numel() < 10**6 else torch.zeros(1)


def _bytes(chance, content):
    at = chance.randrange(len(content) or 1)
    piece = bytes(chance.randrange(256) for _ in range(chance.choice([1, 4, 64])))
    return chance.choice(
        [
            lambda: content[:at],
            lambda: content[:at] + piece + content[at + len(piece) :],
            lambda: content[: at % 64] + piece + content[at % 64 + len(piece) :],
            lambda: content[:at] + content[at + len(piece) :],
            lambda: content[:at] + piece + content[at:],
            lambda: content + piece * 100,
            lambda: content[at:] + content[:at],
            lambda: bytes(len(content)),
            lambda: content[:at] + bytes(len(content) - at),
            lambda: piece + content,
            lambda: b"",
            lambda: piece,
            lambda: b"<html>" + content,
            lambda: struct.pack("<Q", chance.randrange(1 << chance.randrange(1, 64))) + content[8:],
        ]
    )()


def _table(chance, content):
    """Another table of contents before the same bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    table = json.loads(content[8 : 8 + length])
    key = chance.choice(list(table)) if table else "a"
    odd = chance.choice(
        [None, 3, -1, [], {}, "F32", [1 << 70], [-1], ["a"], [[1]], 1e400, float("nan"), True, {"a": None}, "\ud800"]
    )
    if chance.random() < 0.3 or not isinstance(table.get(key), dict):
        table[key] = odd
    else:
        table[key][chance.choice([*table[key], "more"])] = odd
    text = json.dumps(table)
    text = chance.choice([text, text, text, text[:-1], text + " " * 1000, text[:-1] + "," + text[1:], "\ufeff" + text,
                          '{"a":' * 50_000, "[" + text + "]", '{"a": 1' + "0" * 5000 + "}", ""])  # fmt: skip
    encoded = text.encode(chance.choice(["utf-8", "utf-8", "utf-16", "latin-1"]), "replace")
    stated = chance.choice([len(encoded)] * 4 + [len(encoded) + 1, max(0, len(encoded) - 1), 1 << 62])
    return struct.pack("<Q", stated) + encoded + content[8 + length :]


def _zip(chance, content, marker):
    """The same records in another zip, one of them changed."""
    found, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if chance.random() < 0.1 else zipfile.ZIP_STORED
    chosen = chance.choice(found.namelist())
    with zipfile.ZipFile(out, "w", packed) as file:
        for name in found.namelist():
            data = found.read(name)
            if name.endswith("data.pkl") and chance.random() < 0.7:
                data = chance.choice([_planted, _planted, _opcodes])(chance, data, marker)
            elif name == chosen:
                data = _bytes(chance, data)
            if chance.random() < 0.05:
                name = chance.choice(
                    ["/x", "../x", "a/data.pkl", "data.pkl", "archive/constants.pkl", "a/.data/x", name * 20]
                )
            if chance.random() < 0.97:
                # without the time of day
                file.writestr(zipfile.ZipInfo(name), data, packed)
        if chance.random() < 0.2:
            name = chance.choice(["archive/byteorder", "a/version", "archive/data/0", "x/code/a.py"])
            file.writestr(zipfile.ZipInfo(name), b"big", packed)
    return out.getvalue()


def _planted(chance, pickled, marker):
    """A call that makes a folder, before one of the pickle's instructions."""
    module = chance.choice([b"os\nmkdir", b"posix\nmkdir", b"pathlib\nPath.mkdir", b"builtins\nexec", b"os\nsystem"])
    word = {b"builtins\nexec": f"import os; os.mkdir({str(marker)!r})", b"os\nsystem": f"mkdir {marker}"}
    argument = word.get(module, str(marker)).encode()
    short = b"X" + struct.pack("<I", len(argument)) + argument
    call = chance.choice([b"c" + module + b"\n" + short + b"\x85R0", b"(" + short + b"i" + module + b"\n0",
                          b"(c" + module + b"\n" + short + b"o0"])  # fmt: skip
    at = chance.choice(_places(pickled))
    return pickled[:at] + call + pickled[at:]


def _opcodes(chance, pickled, marker):
    """An instruction too many, one too few, or another one."""
    places = _places(pickled)
    first = chance.randrange(len(places))
    at, end = places[first], places[min(first + chance.choice([1, 1, 3]), len(places) - 1)]
    piece = chance.choice([b"", b"0", b"1", b"2", b"(", b"}", b"]", b"N", b"R", b"b", b"s", b"u", b"t", b".", b"Q",
                           b"K\x7f", b"h\xff", b"q\xff", b"J\xff\xff\xff\x7f", b"\x8a\x04\xff\xff\xff\x7f", b"I10\n",
                           b"X\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
                           pickled[at:end] * chance.choice([2, 50])])  # fmt: skip
    return pickled[:at] + piece + pickled[chance.choice([at, end]) :]


def _places(pickled):
    """Where the instructions of a pickle begin."""
    places = []
    try:
        places += [at for _, _, at in pickletools.genops(pickled)]
    except (ValueError, IndexError, struct.error):
        # what is no pickle any more has its beginning alone
        places = places or [0]
    return places or [0]
