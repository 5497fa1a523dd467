"""Pictures of a class as a model draws it before it learns a subject: what a training holds on to."""

from dataclasses import dataclass

import comfy.model_management as mm
import comfy.sample
import comfy.utils
import torch

from ..files.disk_errors import UnreadableFileError
from ..files.lora_names import UNET_PREFIX
from ..files.new_files import clear_leftovers, make_folder, write_tensors
from ..files.output_folder import output_folder
from ..files.safe_files import tensors_in
from ..host.blocks import unet_of
from ..host.calls import live_unet
from ..host.content_keys import digest, patches_digest, rest_digest, sampling_digest, values_digest
from ..host.families import family_of
from ..host.hooked_weights import unpatched
from ..host.latents import LATENT_STEP
from ..host.messages import input_error, log_warning
from ..host.seeded import SEEDS
from ..host.unet_inputs import check_prompt
from .pictures_wire import ClassPictures

# By how many of its numbers a weight is told from that of another checkpoint.
_LOOKS = 64
_SAMPLER, _SCHEDULER = "dpmpp_2m", "karras"


@dataclass(frozen=True)
class ClassSettings:
    """How class pictures are drawn: size (width, height) in pixels, and what the sampler is told."""

    size: tuple[int, int] = (512, 512)
    steps: int = 25
    cfg: float = 7.5


def class_pictures(model, positive, negative, prompt, folder, seeds, settings):
    """ClassPictures of one prompt, one of each seed: read from the folder where they lie, drawn where not.

    prompt: what `positive` says; folder: its name below the output folder; settings: ClassSettings. Raises ValueError
    for a prompt that is empty or of another model, for a picture that is no number, and where the disk does not take a
    file.
    """
    unet_of(model, "Class Pictures")
    check_prompt(model, positive, "positive")
    check_prompt(model, negative, "negative")
    if not prompt.strip():
        raise input_error("prompt is empty; enter the text of positive, such as: a photo of a cat")
    path = output_folder(folder)
    make_folder(path)
    clear_leftovers(path)
    shape = (1, model.model.latent_format.latent_channels, *(side // LATENT_STEP for side in reversed(settings.size)))
    family = family_of(model)
    name = f"class_{_key(model, (positive, negative), shape, settings)}"
    progress = comfy.utils.ProgressBar(len(seeds))
    found = []
    for number in seeds:
        mm.throw_exception_if_processing_interrupted()
        # after the last seed comes the first
        number %= SEEDS
        file = path / f"{name}_{number}.safetensors"
        latent = _kept(file, shape)
        if latent is None:
            latent = _drawn(model, positive, negative, shape, settings, number)
            write_tensors(file, {"latent": latent}, prompt=prompt.strip(), family=family)
        found.append(latent)
        progress.update(1)
    return ClassPictures(folder, torch.stack(found), prompt.strip(), family)


def _drawn(model, positive, negative, shape, settings, seed):
    """(C, h, w) of one picture by the host's own sampler, as a LATENT has it."""
    empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(shape))
    latent = comfy.sample.sample(
        model, comfy.sample.prepare_noise(empty, seed), settings.steps, settings.cfg, _SAMPLER, _SCHEDULER,
        positive, negative, empty, seed=seed, disable_pbar=True,
    )[0].float().cpu()  # fmt: skip
    if not torch.isfinite(latent).all():
        raise input_error(
            f"the picture of seed {seed} has NaN or infinite values, so it was not written; start ComfyUI with "
            "--fp32-unet and draw it again"
        )
    return latent


def _kept(file, shape):
    """The latent of a picture that was drawn before, None where there is none that can be read."""
    try:
        latent = tensors_in(file)[0].get("latent") if file.exists() else None
    except UnreadableFileError as error:
        log_warning(f"{error}; it is drawn again")
        return None
    return latent if latent is not None and latent.shape == shape[1:] else None


def _key(model, prompts, shape, settings):
    """A name for all that decides what the pictures show, but for the seed."""
    texts = [(prompt[0][0], prompt[0][1].get("pooled_output")) for prompt in prompts]
    used = patches_digest(model.patches), sampling_digest(model.get_model_object("model_sampling")), *_looks(model)
    rest = rest_digest(*prompts)
    return values_digest([settings.steps, float(settings.cfg), tuple(shape), used, texts, *filter(None, [rest])]).hex()


def _looks(model):
    """Digests of some numbers of each of the UNet's weights, without patches: a training moves nearly all of them."""
    for name, tensor in live_unet(model.model).state_dict().items():
        try:
            numbers = unpatched(model, f"{UNET_PREFIX}{name}", tensor).flatten()
            yield digest(numbers[:: max(1, len(numbers) // _LOOKS)])
        except NotImplementedError:
            # packed in a form that nobody can read: the others tell
            continue
