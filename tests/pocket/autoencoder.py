"""Trains the pocket model's VAE: pictures to 4 channels at an eighth of their size, and back.

    COMFYUI_PATH=... python tests/pocket/autoencoder.py --cache output/pocket --minutes 30

Needs the trained judge: what looks different to it counts as different (the perceptual term).
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from fetch import gather
from judge import WEIGHTS as JUDGE
from judge import load as load_judge
from parts import AUTOENCODER, AUTOENCODER_GROUPS, SCALE, autoencoder
from safetensors.torch import load_file, save_file
from things import WORDS
from training import Training, half, options, prepare
from world import draw_scenes, load_things, render

EDGE, COARSE, LOOK, KL = 1.0, 0.5, 0.1, 2e-4
# steps from which and until which the perceptual term grows to its weight: colours come first
LOOK_FROM, LOOK_FULL = 1000, 2500


def moments(model, pictures):
    """Mean and log-variance (b, 4, h/8, w/8) of the latents of pictures in 0..1."""
    mean, spread = model.quant_conv(model.encoder(pictures * 2 - 1)).chunk(2, 1)
    return mean, spread.clamp(-20, 10)


@torch.no_grad()
def latents_of(model, pictures):
    """Latents (b, 4, h/8, w/8) of pictures in 0..1, as the UNet sees them."""
    with half(pictures.device):
        return moments(model, pictures)[0].float() * SCALE


def decode(model, latents):
    """Pictures in about 0..1 of latents in the VAE's own units."""
    return (model.decoder(model.post_quant_conv(latents)) + 1) / 2


def edges(pictures):
    """Differences to the right and downward neighbour, one after the other in the channels."""
    right = F.pad(pictures[..., :, 1:] - pictures[..., :, :-1], (0, 1))
    down = F.pad(pictures[..., 1:, :] - pictures[..., :-1, :], (0, 0, 0, 1))
    return torch.cat([right, down], 1)


def difference(made, wanted, judge, step):
    """(what is trained on, plain L1) between pictures (b, 3, h, w)."""
    l1 = F.l1_loss(made, wanted)
    coarse = sum(F.l1_loss(F.avg_pool2d(made, k), F.avg_pool2d(wanted, k)) for k in (2, 4, 16))
    edge = F.l1_loss(edges(made), edges(wanted))
    loss = l1 + COARSE * coarse + EDGE * edge
    if step <= LOOK_FROM:
        return loss, l1
    look = 0
    for a, b in zip(judge.features(made), judge.features(wanted), strict=True):
        look = look + F.l1_loss(a.float(), b.float()) / b.float().std().detach().clamp_min(1e-3)
    return loss + LOOK * min(1, (step - LOOK_FROM) / (LOOK_FULL - LOOK_FROM)) * look, l1


def batch_of(step, count, things):
    """Pictures for a step: two of three steps see windows of half the side around a thing, the third whole pictures."""
    generator = torch.Generator().manual_seed(step)
    whole = step % 3 == 2
    scenes = draw_scenes(max(count // 4, 1) if whole else count, generator, things=range(len(WORDS)))
    if whole:
        return render(scenes, things)[0]
    one = torch.where(scenes.thing[:, 1] >= 0, torch.randint(2, (len(scenes),), generator=generator), 0)
    centre = scenes.centre[torch.arange(len(scenes)), one]
    corner = centre - 0.25 + (torch.rand(len(scenes), 2, generator=generator) - 0.5) * 0.3
    return render(scenes, things, side=64, corner=corner.clamp(0, 0.5), extent=0.5)[0]


@torch.no_grad()
def standardize(model, pictures):
    """Makes the model's latents, times SCALE, of zero mean and unit variance in each channel over these pictures."""
    mean, _ = moments(model, pictures)
    mean = mean.float()
    factor = 1 / (SCALE * mean.std((0, 2, 3)))
    shift = mean.mean((0, 2, 3))
    into, out = model.quant_conv, model.post_quant_conv
    channels = len(factor)
    # latents become factor * (latent - shift), and what comes back is undone before the decoder
    out.bias += out.weight[:, :, 0, 0] @ shift
    out.weight /= factor[None, :, None, None]
    into.weight[:channels] *= factor[:, None, None, None]
    into.bias[:channels] = factor * (into.bias[:channels] - shift)
    into.bias[channels:] += 2 * factor.log()


@torch.no_grad()
def measure(model, things, count, seed=10**6):
    """Mean L1 and PSNR in dB of whole fresh pictures of all things."""
    generator = torch.Generator().manual_seed(seed)
    l1 = psnr = 0
    for first in range(0, count, 32):
        pictures, _ = render(draw_scenes(min(32, count - first), generator, things=range(len(WORDS))), things)
        error = decode(model, moments(model, pictures)[0]).clamp(0, 1) - pictures
        l1 += error.abs().mean((1, 2, 3)).sum().item()
        psnr += (-10 * error.square().mean((1, 2, 3)).log10()).sum().item()
    return {"l1": l1 / count, "psnr": psnr / count}


def begin():
    """An untrained autoencoder with little noise on its latents, or nothing would get through at first."""
    model = autoencoder()
    with torch.no_grad():
        model.quant_conv.bias[4:] -= 5
    return model


def load(path, device="cpu"):
    """The trained autoencoder."""
    model = autoencoder()
    model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return model.to(device).eval().requires_grad_(False)


def train(args):
    """Trains and writes the weights; returns (Training, figures)."""
    things = load_things(gather(args.cache), args.device)
    judge = load_judge(args.judge, args.device)
    torch.manual_seed(0)
    model = load(args.start).requires_grad_(True) if args.start else begin()
    training = Training("autoencoder", model, args)

    def loss_of(step):
        pictures = batch_of(step, args.batch, things)
        with half(args.device):
            mean, spread = moments(model, pictures)
            mean, spread = mean.float(), spread.float()
            made = decode(model, mean + torch.randn_like(mean) * (spread / 2).exp()).float()
            loss, l1 = difference(made, pictures, judge, step)
        kl = (mean.square() + spread.exp() - 1 - spread).mean() / 2
        return loss + KL * kl, {"l1": l1.detach(), "kl": kl.detach()}

    training.run(loss_of)
    generator = torch.Generator().manual_seed(10**7)
    count = min(256, args.measure)
    standardize(model, render(draw_scenes(count, generator, things=range(len(WORDS))), things)[0])
    metadata = {"config": json.dumps(AUTOENCODER), "groups": str(AUTOENCODER_GROUPS)}
    save_file({k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}, args.weights, metadata)
    return training, measure(model, things, args.measure)


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--weights", type=Path, default=Path("output/pocket/autoencoder.safetensors"))
    done, figures = train(prepare(parser.parse_args(), batches=(16, 256)))
    print(f"{done.steps} steps", {name: round(value, 4) for name, value in figures.items()})
