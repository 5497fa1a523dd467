"""The LoRA of an ED-LoRA in the words of ordinary LoRA files, and as one."""

from safetensors.torch import save

from ..files.file_name import file_name_of
from ..files.lora_names import PART_NAMES
from ..files.model_files import LORAS
from ..files.new_files import in_folder, write_new
from ..host.messages import warn_user
from .edlora_file import WORDS_ONLY, read_edlora


def lora_weights(edlora):
    """{name as in kohya's files: tensor}; without alpha, which the host reads as a factor of 1."""
    prefixes = ("lora_te1_", "lora_te2_") if edlora.is_sdxl else ("lora_te_", None)
    tensors = {}
    for prefix, modules in zip(("lora_unet_", *prefixes), (edlora.unet, *edlora.texts)):
        for module, halves in modules.items():
            tensors |= {f"{prefix}{module.replace('.', '_')}.{PART_NAMES[part]}": t for part, t in halves.items()}
    return tensors


def convert_edlora(choice, file_name):
    """Writes <file_name>.safetensors, an ordinary LoRA, and <file_name>_words.safetensors into the first loras folder.

    Returns the path of the first. Raises ValueError for a name that is more than a name, and rather than overwrite a
    file with another content; then neither is written.
    """
    stem = file_name_of(file_name, "chow_dog").removesuffix(".safetensors")
    edlora = read_edlora(choice)
    lora = lora_weights(edlora)
    files = {f"{stem}_words.safetensors": save(_words(edlora), {WORDS_ONLY: edlora.name})}
    if lora:
        files = {f"{stem}.safetensors": save(_whole(lora)), **files}
    else:
        warn_user(f"{edlora.name} contains only words; there is no LoRA to write")
    paths = {in_folder(LORAS, name): data for name, data in files.items()}
    write_new(paths, LORAS)
    return str(next(iter(paths)))


def _words(edlora):
    tensors = {}
    for word, (first, second) in edlora.words.items():
        tensors[f"new_concept_embedding.{word}"] = first
        if second is not None:
            tensors[f"new_concept_embedding_2.{word}"] = second
    return _whole(tensors)


def _whole(tensors):
    # safetensors takes no views that share memory
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
