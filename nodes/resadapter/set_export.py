"""A ResAdapter set as one LoRA file, which the host's stock LoRA loader applies in full, norms included."""

from safetensors.torch import save

from ..files.file_name import file_name_of
from ..files.lora_names import PART_NAMES
from ..files.model_files import LORAS
from ..files.new_files import in_folder, write_new
from ..host.bare_unet import on_bare_unet
from ..host.messages import warn_user
from .adapter_sets import SET_KIND, read_set
from .set_fit import diffusers_names, fitted


@on_bare_unet
def export_resadapter(model, choice, file_name):
    """Writes the file into the first of the host's loras folders and returns its path.

    Raises ValueError for a name that is more than a name, and rather than overwrite a file with another content.
    """
    path = in_folder(LORAS, file_name_of(file_name, "resadapter_v2_sd1.5"))
    adapter = read_set(choice)
    lora, norms = fitted(adapter, model)
    data = save(_tensors(model, lora, norms), {SET_KIND: adapter.published} if adapter.published else None)
    write_new({path: data}, LORAS)
    if not norms:
        warn_user(f"{path.name}: the set's norms are missing, so the file contains only the LoRA")
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
