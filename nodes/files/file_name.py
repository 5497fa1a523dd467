"""Names of files and folders that a user enters: one check for all, so that every system can write and show them."""

import re
import unicodedata

from ..host.messages import input_error

# Endings of model files that are not written here.
OTHER_ENDINGS = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl", ".sft")
# Bytes: a disk takes 255, and what is written beside has a longer name for a while.
_LONGEST = 180
# Names that some system or shell reads as more than a name.
_UNSAFE = re.compile(r'[/\\:*?"<>|]|\.\.|^\.|[. ]$|^\s*$')
# Names of Windows' devices, whatever ending they have.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\xb9\xb2\xb3])\s*(\..*)?", re.IGNORECASE)


def file_name_of(name, example):
    """The name of a safetensors file from what the user entered; ValueError for one that is more than a name, and for
    the ending of another kind of model file.
    """
    name = name.strip()
    wrong = _wrong_with(name)
    if not wrong and name.lower().endswith(OTHER_ENDINGS):
        wrong = "it has the ending of another kind of file"
    if wrong:
        raise input_error(
            f'file_name is "{name}": {wrong}; enter a bare name such as "{example}", without folders; a safetensors '
            "file is written"
        )
    return name if name.endswith(".safetensors") else f"{name}.safetensors"


def folder_name_of(name):
    """The parts of a folder's name, without what leads nowhere; ValueError for what is no name on every system."""
    parts = [part.strip() for part in re.split(r"[/\\]+", name.strip().rstrip("/\\"))]
    for part in parts:
        wrong = _wrong_with(part)
        if wrong:
            raise input_error(
                f'folder is "{name}": {wrong}; enter the name of a folder inside ComfyUI\'s output folder'
            )
    return parts


def _wrong_with(name):
    if any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in name):
        return "it has characters that cannot be seen"
    if len(name.encode()) > _LONGEST:
        return f"it is longer than {_LONGEST} bytes"
    if _DEVICES.fullmatch(name):
        return "Windows keeps that name for a device"
    return "it is more than a name" if _UNSAFE.search(name) else None
