"""Pairs of plain and golden noise as files: what an NPNet is trained on."""

import hashlib
import math

import comfy.model_management
import comfy.sample
import comfy.utils
import torch

from ..files.disk_errors import UnreadableFileError
from ..files.new_files import clear_leftovers, make_folder, write_tensors
from ..files.safe_files import tensors_in
from ..host.content_keys import digest, rest_digest, values_digest
from ..host.latents import LATENT_STEP
from ..host.messages import input_error, log_warning
from ..host.paired_rows import taken_apart
from ..host.seeded import SEEDS
from .redenoised import Redenoised, check_text

# What the files of a folder of pairs are called.
PAIR_FILES, PROMPT_FILES = "pair_*.safetensors", "prompt_*.safetensors"
AGAIN_COLLECT = "delete that pair and run Collect Noise Pairs again"


def collect_pairs(model, positive, negative, folder, *, seeds, size, settings):
    """Writes a pair of re-denoised noise for one prompt and each of the seeds; pairs that are there already are kept.

    size: (width, height) in pixels; settings: RedenoiseSettings.

    pair_<prompt and settings>_<seed>.safetensors holds `noise` and `golden` (1, C, h, w), prompt_<prompt>.safetensors
    the prompt (1, n, D). Returns how many pairs of this prompt and these settings the folder holds now. Raises
    ValueError for an empty prompt, for noise that is no number, and where the disk does not take a file.
    """
    prompt = _prompt_to_keep(positive, negative)
    make_folder(folder)
    clear_leftovers(folder)
    latent = torch.zeros(
        1, model.model.latent_format.latent_channels, *(math.ceil(side / LATENT_STEP) for side in reversed(size))
    )
    words = digest(prompt).hex()
    name = f"pair_{words}_{_beside(positive, negative, latent.shape, settings)}"
    write_tensors(folder / f"prompt_{words}.safetensors", {"prompt": taken_apart(prompt)[0].contiguous()})
    progress = comfy.utils.ProgressBar(len(seeds))
    for number in seeds:
        comfy.model_management.throw_exception_if_processing_interrupted()
        # after the last seed comes the first
        number %= SEEDS
        path = folder / f"{name}_{number}.safetensors"
        if not _is_kept(path):
            source = _Seeded(number)
            noise = source.generate_noise({"samples": latent})
            golden = Redenoised(source, model, positive, negative, settings).golden(noise)
            if not torch.isfinite(golden).all():
                raise input_error(
                    f"the golden noise of seed {number} has NaN or infinite values, so no pair was written; start "
                    "ComfyUI with --fp32-unet and collect again"
                )
            write_tensors(path, {"noise": noise, "golden": golden})
        progress.update(1)
    return len(list(folder.glob(f"{name}_*.safetensors")))


def _beside(positive, negative, shape, settings):
    """What tells pairs of one prompt apart, but for their seeds."""
    numbers = settings.guidance, settings.inverse_guidance, settings.steps, *shape
    told = digest(torch.tensor(numbers, dtype=torch.float64), *(entry[0] for entry in negative))
    if rest := rest_digest(positive, negative):
        told = values_digest([told, rest])
    return told.hex()[:8]


def _prompt_to_keep(positive, negative):
    check_text(positive, "positive")
    check_text(negative, "negative")
    prompt = positive[0][0].detach().float().cpu()
    if not torch.isfinite(prompt).all():
        raise input_error("positive has NaN or infinite values; start ComfyUI with --fp32-text-enc")
    return prompt


def read_pairs(folder):
    """[(noise, golden, prompt)] of all pairs in a folder, in the order of their names; prompts are shared.

    Raises ValueError for a folder without pairs, with pairs of several shapes, or with a file that is no pair.
    """
    prompts, pairs = {}, []
    for path in sorted(folder.glob(PAIR_FILES)):
        try:
            noise, golden = _pair(path)
        except UnreadableFileError as error:
            raise input_error(str(error)) from error
        words = path.name.split("_")[1]
        if words not in prompts:
            prompts[words] = _prompt_of_pair(folder / f"prompt_{words}.safetensors", path)
        pairs.append((noise, golden, prompts[words]))
    if not pairs:
        raise input_error(f"{folder.name} contains no noise pairs; run Collect Noise Pairs with the same folder first")
    shapes = {(noise.shape[1:], prompt.shape[-1]) for noise, _, prompt in pairs}
    if len(shapes) > 1:
        raise input_error(f"{folder.name} contains pairs of several sizes or models; use one folder for each")
    return pairs


def pairs_digest(pairs):
    """A hash of the contents and the order of pairs."""
    # a prompt is shared by many pairs, and large
    known = {id(prompt): digest(prompt) for _, _, prompt in pairs}
    state = hashlib.blake2b(digest_size=16)
    for noise, golden, prompt in pairs:
        state.update(digest(noise, golden) + known[id(prompt)])
    return state.digest()


def _is_kept(path):
    if not path.exists():
        return False
    try:
        _pair(path)
    except UnreadableFileError as error:
        log_warning(f"{path.name} {error.wrong}; it is collected again")
        return False
    return True


def _pair(path):
    """(noise, golden) in float32; an UnreadableFileError for what is no pair."""
    try:
        found = tensors_in(path)[0]
    except UnreadableFileError as error:
        raise UnreadableFileError(path.name, error.wrong, AGAIN_COLLECT) from error
    noise, golden = found.get("noise"), found.get("golden")
    if noise is None or golden is None:
        raise UnreadableFileError(path.name, "is not a noise pair: it lacks noise or golden", AGAIN_COLLECT)
    if noise.shape != golden.shape or noise.ndim != 4 or len(noise) != 1:
        raise UnreadableFileError(
            path.name,
            f"is not a noise pair: its shapes are {list(noise.shape)} and {list(golden.shape)}",
            AGAIN_COLLECT,
        )
    if not noise.is_floating_point() or not golden.is_floating_point():
        raise UnreadableFileError(path.name, "is not a noise pair: it holds whole numbers", AGAIN_COLLECT)
    return noise.float(), golden.float()


def _prompt_of_pair(path, pair):
    try:
        prompt = tensors_in(path)[0].get("prompt")
        if prompt is not None and prompt.ndim == 3 and len(prompt) and prompt.is_floating_point():
            return prompt
        wrong = "is not a prompt"
    except UnreadableFileError as error:
        wrong = error.wrong
    raise input_error(f"{path.name}, the prompt of {pair.name}, {wrong}; {AGAIN_COLLECT}")


class _Seeded:
    """Random Noise of the host."""

    def __init__(self, seed):
        self.seed = seed

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], self.seed)
