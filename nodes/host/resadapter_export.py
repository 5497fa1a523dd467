"""A ResAdapter set as one LoRA file, which the host's stock LoRA loader applies in full, norms included."""

import re
from pathlib import Path

import folder_paths
from safetensors.torch import save

from .resadapter_fit import diffusers_names, fitted
from .resadapter_keys import PART_NAMES
from .resadapter_sets import KIND, read_set
from .say import refusal, tell

# Names that some system or shell reads as more than a name.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]|\.\.|^\.|^\s*$')


def export_resadapter(model, choice, file_name):
    """Writes the file into the first of the host's loras folders and returns its path.

    Raises ValueError for a name that is more than a name, and rather than overwrite a file with another content.
    """
    path = Path(folder_paths.get_folder_paths("loras")[0]) / _file_name(file_name)
    adapter = read_set(choice)
    lora, norms = fitted(adapter, model)
    data = save(_tensors(model, lora, norms), {KIND: adapter.published} if adapter.published else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        if path.read_bytes() != data:
            raise refusal(
                f"{path.name} exists in the loras folder with another content; enter another file_name"
            ) from None
    if not norms:
        tell(f"{path.name}: the set's norms are missing, so the file holds the LoRA alone")
    return str(path)


def _tensors(model, lora, norms):
    names = diffusers_names(model)
    tensors = {}
    for key, weights in lora.items():
        module = names[key].removesuffix(".weight").replace(".", "_")
        tensors |= {f"lora_unet_{module}.{PART_NAMES[part]}": tensor for part, tensor in weights.items()}
    # the stock loader knows a weight by its module and a bias by its whole name
    tensors |= {f"{key.removesuffix('.weight')}.set_weight": tensor for key, tensor in norms.items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _file_name(name):
    name = name.strip()
    if _UNSAFE.search(name):
        raise refusal(f'file_name is "{name}"; enter a bare name such as "resadapter_v2_sd1.5", without folders')
    return name if name.endswith(".safetensors") else f"{name}.safetensors"
