"""Pairs of plain and golden noise as files: what an NPNet is trained on."""

import math
from pathlib import Path

import comfy.model_management
import comfy.sample
import comfy.utils
import folder_paths
import torch

from ..files.new_files import write_tensors
from ..files.safe_files import read_tensors
from ..host.content_keys import digest
from ..host.latents import LATENT_STEP
from ..host.messages import input_error
from .redenoised import Redenoised


def pairs_folder(name):
    """A folder below the host's output folder; ValueError for a name that leads out of it."""
    output = Path(folder_paths.get_output_directory()).resolve()
    folder = (output / name.strip()).resolve()
    if not name.strip() or output not in folder.parents:
        raise input_error(f'folder is "{name}"; enter the name of a folder inside ComfyUI\'s output folder')
    return folder


def collect_pairs(model, positive, negative, folder, *, seeds, size, settings):
    """Writes a pair of re-denoised noise for one prompt and each of the seeds; pairs that are there already are kept.

    size: (width, height) in pixels; settings: RedenoiseSettings.

    pair_<prompt and settings>_<seed>.safetensors holds `noise` and `golden` (1, C, h, w), prompt_<prompt>.safetensors
    the prompt (1, n, D). Returns how many pairs of this prompt and these settings the folder holds now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prompt = positive[0][0].detach().float().cpu()
    latent = torch.zeros(
        1, model.model.latent_format.latent_channels, *(math.ceil(side / LATENT_STEP) for side in reversed(size))
    )
    guidances = settings.guidance, settings.inverse_guidance
    numbers = torch.tensor([*guidances, settings.steps, *latent.shape], dtype=torch.float64)
    words = digest(prompt).hex()
    name = f"pair_{words}_{digest(numbers, *(c[0] for c in negative)).hex()[:8]}"
    write_tensors(folder / f"prompt_{words}.safetensors", {"prompt": prompt})
    progress = comfy.utils.ProgressBar(len(seeds))
    for number in seeds:
        comfy.model_management.throw_exception_if_processing_interrupted()
        path = folder / f"{name}_{number}.safetensors"
        if not path.is_file():
            source = _Seeded(number)
            golden = Redenoised(source, model, positive, negative, settings)
            noise = source.generate_noise({"samples": latent})
            write_tensors(path, {"noise": noise, "golden": golden.generate_noise({"samples": latent})})
        progress.update(1)
    return len(list(folder.glob(f"{name}_*.safetensors")))


def read_pairs(folder):
    """[(noise, golden, prompt)] of all pairs in a folder, in the order of their names; prompts are shared.

    Raises ValueError for a folder without pairs, with pairs of several shapes, or with a file that cannot be read.
    """
    prompts, pairs = {}, []
    for path in sorted(folder.glob("pair_*.safetensors")):
        words = path.name.split("_")[1]
        if words not in prompts:
            prompts[words] = read_tensors(folder / f"prompt_{words}.safetensors")[0]["prompt"]
        pair, _ = read_tensors(path)
        pairs.append((pair["noise"], pair["golden"], prompts[words]))
    if not pairs:
        raise input_error(f"{folder.name} contains no noise pairs; run Collect Noise Pairs with the same folder first")
    shapes = {(noise.shape[1:], prompt.shape[-1]) for noise, _, prompt in pairs}
    if len(shapes) > 1:
        raise input_error(f"{folder.name} contains pairs of several sizes or models; use one folder for each")
    return pairs


class _Seeded:
    """Random Noise of the host."""

    def __init__(self, seed):
        self.seed = seed

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], self.seed)
