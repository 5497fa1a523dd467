"""Inverted pictures on disk, in the host's user folder, by content and within a budget of bytes for each kind."""

import contextlib
import os
from pathlib import Path

import folder_paths
import torch

from ..files.disk_errors import UnreadableFileError
from ..files.new_files import clear_leftovers, put_tensors
from ..files.safe_files import tensors_in
from ..host.calls import bare_forward, channels_of, clean_options, live_unet
from ..host.content_keys import digest, sampling_digest
from ..host.messages import log_warning
from ..host.seeded import seeded_noise
from ..host.text_rows import one_text
from ..host.unet_inputs import compute_dtype, unet_inputs

# Side of the small picture by which a model is recognized, in latent pixels.
PROBE = 8
# Kinds of pictures, each with the folder in ours where its files lie: none makes room in that of another.
LAYOUT_FILES, REFERENCE_FILES = "", "references"


def folder(kind):
    """Where the files of a kind lie."""
    return Path(folder_paths.get_user_directory()) / "personalization" / "inversions" / kind


def key_of(base, latent, text, levels):
    """A name for an inversion by all that decides it: the model as it runs, with all that is patched into it, the
    picture, the prompt, the noise levels.

    The model is told by what its UNet makes of a small fixed input, whose cost is a small part of one step.
    """
    device, dtype = latent.device, compute_dtype(base)
    probe = seeded_noise("which model is this", (1, latent.shape[1], PROBE, PROBE))
    inputs = unet_inputs(base, *text, probe)
    like = torch.empty(0, device=device, dtype=dtype)
    batch = one_text(inputs, live_unet(base), like)
    timestep = torch.full((1,), 500.0, device=device)
    options = clean_options(1.0, device)
    probe = inputs.beside(probe, channels_of(base), probe).to(like)
    seen = bare_forward(base)(probe, timestep, batch.context, batch.y, None, options)
    contents = digest(seen, latent, inputs.context, inputs.y, inputs.contexts, torch.tensor(levels))
    return (contents + sampling_digest(base.model_sampling)).hex()


def load(kind, key, shape=None):
    """The latents of a kind kept under a key, or None; also None where they have another shape than asked for."""
    path = folder(kind) / f"{key}.safetensors"
    if not path.exists():
        return None
    try:
        found = tensors_in(path)[0].get("latents")
    except UnreadableFileError as error:
        log_warning(f"{path} {error.wrong}: the picture is inverted again")
        return None
    if found is None or (shape is not None and tuple(found.shape) != tuple(shape)):
        log_warning(f"{path} contains something else: the picture is inverted again")
        return None
    # the least recently used files go first; where their times cannot be set, the oldest
    with contextlib.suppress(OSError):
        os.utime(path)
    return found


def save(kind, key, latents, budget):
    """Keeps latents of a kind under a key if its budget (bytes) allows; older files of that kind make room."""
    size = latents.numel() * latents.element_size()
    if size > budget:
        return
    place = folder(kind)
    try:
        place.mkdir(parents=True, exist_ok=True)
        _make_room(place, budget - size)
        put_tensors(place / f"{key}.safetensors", {"latents": latents})
    except OSError as error:
        log_warning(f"the inverted picture cannot be saved in {place} ({error})")


def _make_room(place, limit):
    # what other servers are writing counts as well
    files, total = [], clear_leftovers(place)
    for path in place.glob("*.safetensors"):
        # another server may make room at the same time
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            files.append((status.st_mtime, status.st_size, path))
            total += status.st_size
    for _, size, path in sorted(files):
        if total <= limit:
            return
        total -= size
        path.unlink(missing_ok=True)
