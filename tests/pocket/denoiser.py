"""Trains the pocket model's text encoder and UNet together, on latents of the trained autoencoder.

COMFYUI_PATH=... python tests/pocket/denoiser.py --cache output/pocket --minutes 60
"""

import json
from functools import partial
from pathlib import Path

import torch
from autoencoder import latents_of
from autoencoder import load as load_autoencoder
from fetch import gather
from lessons import CYCLE, LESSONS
from looks import chroma_of_things
from parts import TEXT_ENCODER, UNET, UNET_GROUPS, text_encoder, unet
from safetensors.torch import load_file, save_file
from tints import tinted
from torch import nn
from training import Training, half, options, prepare
from vocabulary import ROWS, UNKNOWN, rows_of
from world import SIDE, load_things, render

# shares of captions that are dropped, for guidance, and that hold words nobody knows
DROPPED, STRANGE = 0.1, 0.15
# How errors of the predicted noise count, by signal-to-noise ratio r: min(r + MORE, GAMMA) / r, at most MOST. GAMMA
# keeps steps of little noise from ruling (Hang et al. 2023, min-SNR). MORE lets those of much noise count, where only
# the caption can say what is in the picture.
GAMMA, MORE, MOST = 5.0, 0.5, 50.0
# how many of the last timesteps count as the begin of sampling
BEGIN = 220


class Denoiser(nn.Module):
    """Text encoder and UNet as one network that learns."""

    def __init__(self):
        super().__init__()
        self.text_encoder = text_encoder(len(ROWS))
        self.unet = unet()

    def context(self, rows):
        """What the UNet reads of captions (b, 77) of row numbers: (b, 77, width)."""
        table = self.text_encoder.get_input_embeddings().weight
        embedded = table[rows]
        strange = torch.randn_like(embedded) * table.detach().std()
        embedded = torch.where((rows == UNKNOWN)[..., None], strange, embedded)
        return self.text_encoder.text_model(embeds=embedded, num_tokens=[1] * len(rows), dtype=embedded.dtype)[0]

    def forward(self, noisy, timesteps, rows):
        return self.unet(noisy, timesteps, self.context(rows))


class Pool:
    """Latents and captions that are drawn from in random order while new ones replace the oldest.

    `compose(count, generator)` gives (Scenes, what render() needs of a window, captions).
    """

    def __init__(self, size, things, vae, seed, compose, side=SIDE):
        self.things, self.vae, self.compose = things, vae, compose
        device = things[0].device
        self.latents = torch.empty(size, 4, side // 8, side // 8, device=device)
        self.rows = torch.empty(size, 77, dtype=torch.long, device=device)
        self.next, self.generator = 0, torch.Generator().manual_seed(seed)
        for start in range(0, size, 256):
            self.add(min(256, size - start))

    @torch.no_grad()
    def add(self, count):
        """Draws so many new pictures in place of the oldest."""
        g = self.generator
        scenes, window, texts = self.compose(count, g)
        rows = []
        for text in texts:
            chance, before, after = torch.rand(3, generator=g).tolist()
            strange = (int(before * 3), int(after * 3)) if chance < STRANGE else (0, 0)
            rows.append(rows_of("" if chance > 1 - DROPPED else text, *strange))
        pictures, _ = render(scenes, self.things, **window)
        latents = latents_of(self.vae, pictures)
        where = torch.arange(self.next, self.next + count) % len(self.latents)
        where = where.to(pictures.device)
        self.latents[where], self.rows[where] = latents, torch.stack(rows).to(pictures.device)
        self.next = (self.next + count) % len(self.latents)

    def draw(self, count, generator):
        """(latents, rows) of so many pictures."""
        which = torch.randint(len(self.latents), (count,), generator=generator).to(self.latents.device)
        return self.latents[which], self.rows[which]


def alphas_bar(device="cpu"):
    """Share of the signal's variance at each of SD1.5's 1000 timesteps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float().to(device)


def noise_loss(network, latents, rows, bar, generator, lean=1.0, begin=0.0):
    """(what is trained on, {name: value}) of a network that predicts the noise on latents with captions' rows.

    Timesteps are spread evenly over the batch, or with `lean` below 1 more densely where noise rules; `bar` is what
    alphas_bar() gives. A share `begin` of the batch is as sampling begins: of a picture there is as much as a sampler
    that knows it has drawn by then, nothing at the last timestep. Left to itself a network learns there to read from
    the last traces of a picture what stands where, and then reads it from noise, whatever the caption says.
    """
    device, count = latents.device, len(latents)
    spread = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    begins = torch.rand(count, generator=generator) < begin
    timesteps = torch.where(begins, 1000 - BEGIN * (1 - spread) ** 3, spread**lean * 1000)
    timesteps = timesteps.long().clamp_max(999).to(device)
    signal = bar[timesteps][:, None, None, None]
    shown = signal.sqrt() * latents
    noisy = (1 - signal).sqrt() * torch.randn_like(latents) + shown * drawn(timesteps, begins, bar)[:, None, None, None]
    # what has to be taken away to leave the picture
    noise = (noisy - shown) / (1 - signal).sqrt()
    with half(device):
        made = network(noisy, timesteps, rows)
    error = (made.float() - noise).square().mean((1, 2, 3))
    ratio = (bar / (1 - bar))[timesteps]
    weight = ((ratio + MORE).clamp_max(GAMMA) / ratio).clamp_max(MOST)
    return (error * weight).mean(), {"mse": error.mean().detach()}


def drawn(timesteps, begins, bar):
    """How much of its picture stands at a timestep: all, or where `begins` as much as sampling from noise has drawn.

    Sampling goes straight from noise of the last level to the picture.
    """
    level = ((1 - bar) / bar).sqrt()
    return torch.where(begins.to(bar.device), 1 - level[timesteps] / level[-1], 1.0)


def export(denoiser, folder):
    """Writes text_encoder.safetensors and unet.safetensors, as the pack loads them, in half precision."""
    state = {k: v.half().cpu().contiguous() for k, v in denoiser.unet.state_dict().items()}
    save_file(state, folder / "unet.safetensors", {"config": json.dumps(UNET), "groups": str(UNET_GROUPS)})
    state = {k: v.half().cpu().contiguous() for k, v in denoiser.text_encoder.state_dict().items()}
    del state["text_projection.weight"]
    table = state.pop("text_model.embeddings.token_embedding.weight")
    known = [i for i, number in enumerate(ROWS.values()) if number >= 0]
    state["token_rows"] = table[known]
    state["token_ids"] = torch.tensor([number for number in ROWS.values() if number >= 0])
    config = {"config": json.dumps(TEXT_ENCODER), "deviation": repr(table.float().std().item())}
    save_file(state, folder / "text_encoder.safetensors", config)


def load(folder):
    """The Denoiser whose weights export() wrote."""
    denoiser = Denoiser()
    denoiser.unet.load_state_dict({k: v.float() for k, v in load_file(folder / "unet.safetensors").items()})
    state = {k: v.float() for k, v in load_file(folder / "text_encoder.safetensors").items()}
    table = denoiser.text_encoder.get_input_embeddings().weight
    row_of = {number: row for row, number in enumerate(ROWS.values())}
    rows = [row_of[number] for number in state.pop("token_ids").int().tolist()]
    with torch.no_grad():
        table[rows] = state.pop("token_rows")
    state["text_model.embeddings.token_embedding.weight"] = table.detach()
    state["text_projection.weight"] = denoiser.text_encoder.text_projection.weight
    denoiser.text_encoder.load_state_dict(state)
    return denoiser


def train(args):
    """Trains and writes the weights; returns the Training."""
    things = load_things(gather(args.cache), args.device)
    own, things = chroma_of_things(things).cpu(), tinted(things)
    vae = load_autoencoder(args.autoencoder, args.device)
    torch.manual_seed(0)
    training = Training("denoiser", load(args.start) if args.start else Denoiser(), args, decay=0.998, muon=True)
    # other pictures and other noise in each process
    torch.manual_seed(1 + training.worker)
    seed = 1 + training.steps * training.workers + training.worker
    pools = {
        name: Pool(args.pool, things, vae, seed, partial(lesson.compose, own=own), round(SIDE * lesson.extent))
        for name, lesson in LESSONS.items()
    }
    bar = alphas_bar(args.device)

    def loss_of(number):
        name = CYCLE[number // training.workers % len(CYCLE)]
        pool, lesson = pools[name], LESSONS[name]
        pool.add(round(args.new * lesson.times))
        generator = torch.Generator().manual_seed(number)
        latents, rows = pool.draw(round(args.batch * lesson.times), generator)
        loss, said = noise_loss(training.network, latents, rows, bar, generator, lesson.lean, lesson.begin)
        return loss, {name: said["mse"]}

    training.run(loss_of)
    if training.worker == 0:
        export(training.network, args.folder)
    return training


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("--autoencoder", type=Path, default=Path("output/pocket/autoencoder.safetensors"))
    parser.add_argument("--folder", type=Path, default=Path("output/pocket"), help="where the weights go")
    parser.add_argument("--pool", type=int, help="latents kept (default: by device)")
    parser.add_argument("--new", type=int, help="new latents per step (default: by device)")
    args = prepare(parser.parse_args(), batches=(48, 1024))
    on_cuda = args.device.startswith("cuda")
    args.pool = args.pool or (65536 if on_cuda else 6144)
    args.new = args.new or (64 if on_cuda else 6)
    done = train(args)
    print(f"{done.steps} steps", done.notes)
