"""What tests of the pocket model take in place of emoji and trained weights: no network, no hours."""

import argparse
import json

import numpy as np
import parts
import torch
from denoiser import Denoiser, export
from safetensors.torch import save_file
from things import WORDS


def options(cache, **more):
    """The options of a training of two steps."""
    common = {
        "minutes": 1,
        "steps": 2,
        "batch": 4,
        "rate": 1e-3,
        "device": "cpu",
        "threads": None,
        "fresh": False,
        "start": None,
        "measure": 20,
    }
    return argparse.Namespace(cache=cache, **(common | more))


def blobs(folder):
    """Puts smooth blobs of random colours into a folder in place of the emoji; returns the folder."""
    generator = torch.Generator().manual_seed(0)
    ticks = torch.linspace(-1, 1, 128)
    alpha = ((1 - (ticks**2 + ticks[:, None] ** 2).sqrt()) * 8).clamp(0, 1)
    made = {}
    for word in WORDS:
        colours = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), 128, mode="bilinear")[0]
        made[word] = (torch.cat([colours, alpha[None]]) * 255).byte().movedim(0, -1).numpy()
    np.savez_compressed(folder / "things.npz", **made)
    return folder


def random_networks():
    """(Denoiser, autoencoder) as they are trained, with random weights that half precision holds."""
    torch.manual_seed(0)
    with torch.inference_mode(False):
        denoiser, vae = Denoiser().requires_grad_(False).eval(), parts.autoencoder().requires_grad_(False).eval()
        # what begins as zero would hide what stands before it
        for parameter in denoiser.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
            parameter.copy_(parameter.half().float())
    return denoiser, vae


def predicted(model, positive, size=(16, 16)):
    """What the host's first UNet call was given and gave (of tiny.Recorder), at latents of this size."""
    from support.models import recording, sample

    recorded, recorder = recording(model)
    sample(recorded, positive, latent=(1, 4, *size), steps=1)
    return recorder.calls[0]


def write(networks, folder):
    """Writes the three files of the pocket model; returns the folder."""
    denoiser, vae = networks
    export(denoiser, folder)
    state = {k: v.half() for k, v in vae.state_dict().items()}
    save_file(state, folder / "autoencoder.safetensors", {"config": json.dumps(parts.AUTOENCODER), "groups": "4"})
    return folder
