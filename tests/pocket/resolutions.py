"""Teaches the trained pocket model other sizes than 128 x 128: a ResAdapter set of two files (arXiv 2403.02084).

    COMFYUI_PATH=... python tests/pocket/resolutions.py --minutes 15 --folder nodes/pocket

A LoRA of rank 8 on the convolutions that halve and double the size, and the weights of the norms in the residual
blocks; all else stays as it is.
"""

import math
from pathlib import Path

import torch
from autoencoder import latents_of
from autoencoder import load as load_autoencoder
from companions import FOLDER
from denoiser import alphas_bar, noise_loss
from denoiser import load as load_denoiser
from free import with_free_looks
from safetensors.torch import save_file
from tints import tinted_world
from torch import nn
from torch.func import functional_call
from training import Training, options, prepare
from vocabulary import rows_of
from world import captions, draw_scenes, render, settled

# where the set lies among the companions
SET = Path("resadapter") / "resadapter_pocket"
RANK = 8
# sides of the pictures in pixels, one of them in each step
SIDES = (64, 96, 160, 192, 256)
NATIVE = 128
SAMPLERS = {
    **{f"down_blocks.{i}.downsamplers.0.conv": f"input_blocks.{3 * i + 3}.0.op" for i in range(3)},
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
    **{f"up_blocks.{i}.upsamplers.0.conv": f"output_blocks.{3 * i + 2}.2.conv" for i in (1, 2)},
}
RESNETS = {
    **{f"down_blocks.{i}.resnets.{j}": f"input_blocks.{3 * i + 1 + j}.0" for i in range(4) for j in range(2)},
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.resnets.1": "middle_block.2",
    **{f"up_blocks.{i}.resnets.{j}": f"output_blocks.{3 * i + j}.0" for i in range(4) for j in range(3)},
}
NORMS = {
    f"{name}.{norm}.{kind}": f"{host}.{layer}.{kind}"
    for name, host in RESNETS.items()
    for norm, layer in (("norm1", "in_layers.0"), ("norm2", "out_layers.0"))
    for kind in ("weight", "bias")
}


class ResAdapter(nn.Module):
    """What learns: down and up for each sampler convolution, and the norms; the frozen network stands aside."""

    def __init__(self, denoiser):
        super().__init__()
        # in a tuple, or the frozen network would count as what learns
        self.frozen = (denoiser,)
        weights = dict(denoiser.unet.named_parameters())
        self.downs, self.ups, self.norms = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        for name, host in SAMPLERS.items():
            out, into, *kernel = weights[f"{host}.weight"].shape
            bound = math.sqrt(into * math.prod(kernel))
            self.downs[_key(name)] = nn.Parameter(torch.randn(RANK, into, *kernel) / bound)
            self.ups[_key(name)] = nn.Parameter(torch.zeros(out, RANK, 1, 1))
        for name, host in NORMS.items():
            self.norms[_key(name)] = nn.Parameter(weights[host].detach().clone())

    def forward(self, noisy, timesteps, rows):
        (denoiser,) = self.frozen
        weights = dict(denoiser.unet.named_parameters())
        changed = {host: self.norms[_key(name)] for name, host in NORMS.items()}
        for name, host in SAMPLERS.items():
            down, up = self.downs[_key(name)], self.ups[_key(name)]
            delta = (up.flatten(1) @ down.flatten(1)).view_as(weights[f"{host}.weight"])
            changed[f"{host}.weight"] = weights[f"{host}.weight"] + delta
        with torch.no_grad():
            context = denoiser.context(rows)
        return functional_call(denoiser.unet, changed, (noisy, timesteps, context))

    def files(self):
        """{file name: contents} of the set, as published sets name them."""
        lora = {}
        for key, down in self.downs.items():
            name = "lora_unet_" + key.replace("/", "_")
            lora[f"{name}.lora_down.weight"], lora[f"{name}.lora_up.weight"] = down, self.ups[key]
            # alpha / rank = 1
            lora[f"{name}.alpha"] = torch.tensor(float(RANK))
        norms = {key.replace("/", "."): norm for key, norm in self.norms.items()}
        return {
            "pytorch_lora_weights.safetensors": {k: t.detach().half().cpu().contiguous() for k, t in lora.items()},
            "diffusion_pytorch_model.safetensors": {k: t.detach().float().cpu() for k, t in norms.items()},
        }


def _key(name):
    return name.replace(".", "/")


def batch_of(step, area, things, own, vae):
    """(latents, rows, generator) of pictures of one size; `area` = how many pictures of 128 x 128 they are worth.

    `own` are the things' chromas, as looks.chroma_of_things() gives them.
    """
    generator = torch.Generator().manual_seed(step)
    side = SIDES[step % len(SIDES)]
    scenes = draw_scenes(max(1, round(area * NATIVE**2 / side**2)), generator)
    scenes = settled(with_free_looks(scenes, own, generator), side)
    rows = torch.stack([rows_of(text) for text in captions(scenes, generator)])
    pictures = render(scenes, things, side=side)[0]
    latents = latents_of(vae, pictures)
    return latents, rows.to(latents.device), generator


def train(args):
    """Trains and writes the set; returns the Training."""
    things, own = tinted_world(args.cache, args.device)
    vae = load_autoencoder(args.folder / "autoencoder.safetensors", args.device)
    torch.manual_seed(0)
    denoiser = load_denoiser(args.folder).to(args.device).eval().requires_grad_(False)
    training = Training("resadapter", ResAdapter(denoiser), args, decay=0.99, weight_decay=0.0)
    bar = alphas_bar(args.device)

    def loss_of(step):
        latents, rows, generator = batch_of(step, args.batch, things, own, vae)
        return noise_loss(training.network, latents, rows, bar, generator)

    training.run(loss_of)
    folder = args.out / SET
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in training.network.files().items():
        save_file(tensors, folder / name)
    return training


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("--folder", type=Path, default=Path("nodes/pocket"), help="where the trained weights are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the set goes, in a folder of its own")
    done = train(prepare(parser.parse_args(), batches=(24, 128)))
    print(f"{done.steps} steps", done.notes)
