"""Teaches the trained pocket model to read pictures: an IP-Adapter (arXiv 2308.06721) and a MIP-Adapter (2409.17920).

    COMFYUI_PATH=... python tests/pocket/image_adapter.py ip --minutes 20
    COMFYUI_PATH=... python tests/pocket/image_adapter.py mip --minutes 20   # begins with what the first one learnt

Things in the training pictures have hues that no word names: only the reference says how to colour them. The IP-Adapter
learns on single things, the MIP-Adapter on pairs, each with its own reference and its own hue.
"""

import math
from pathlib import Path

import torch
from autoencoder import latents_of
from autoencoder import load as load_autoencoder
from companions import FOLDER, VISION_FILE, load_vision
from denoiser import alphas_bar, noise_loss
from denoiser import load as load_denoiser
from free import FULL, draw_hues, in_hues
from parts import VISION, host
from safetensors.torch import load_file, save_file
from samples import pack
from things import WORDS
from tints import tinted_world
from torch import nn
from training import Training, options, prepare
from vision import cut_outs, pixels_of
from vocabulary import rows_of
from world import KNOWN_INDICES, captions, draw_scenes, render, settled

KINDS = ("ip", "mip")
# image tokens of a picture, and their width: that of SD1.5's prompts
TOKENS, WIDTH = 4, 768
# hues that references have while it learns, evenly spread
HUES = 36
# shares of pictures whose references and whose captions are dropped, for guidance
NO_PICTURE, NO_CAPTION = 0.08, 0.08
# how strong pictures are while it learns, as published
SCALE = 1.0
# denoiser.noise_loss()'s: left to whole pictures at all noise levels, it would read hues from their last traces
LEAN, BEGIN_SHARE = 0.5, 0.7


class ImageAdapter(nn.Module):
    """What learns: the projection to image tokens, keys and values of each cross-attention, MIP's gates.

    The frozen network stands aside.
    """

    def __init__(self, kind, denoiser):
        super().__init__()
        pack()
        from pack.nodes.host.blocks import cross_attention
        from pack.nodes.image_adapters.adapter_fit import cross_attentions

        self.kind = kind
        # in a tuple, or the frozen network would count as what learns
        self.frozen = (denoiser,)
        self.proj = nn.Linear(VISION["projection_dim"], TOKENS * WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.keys, self.values, self.gates = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for n, block in enumerate(cross_attentions(denoiser.unet)):
            attention = cross_attention(denoiser.unet, block)
            across = attention.to_q.out_features
            for matrices in (self.keys, self.values):
                matrices.append(nn.Parameter(torch.randn(across, WIDTH) / math.sqrt(WIDTH)))
            # values begin small, so that the model begins as it was
            self.values[-1].data.mul_(0.1)
            if kind == "mip":
                self.gates.append(nn.Parameter(torch.zeros(1, across)))
            attention.to_q.register_forward_hook(self._keep(n))
            attention.to_out.register_forward_pre_hook(self._add(n, attention))

    def _keep(self, n):
        def keep(layer, inputs, output):
            self.queries[n] = output

        return keep

    def _add(self, n, attention):
        def add(layer, inputs):
            (text,) = inputs
            return (text + SCALE * self._image(n, attention, self.queries.pop(n), text),)

        return add

    def _image(self, n, attention, q, text):
        from pack.kernels.image_prompt_attention import image_probabilities, image_values, text_gate
        from pack.kernels.object_shares import merge_weights, object_maps

        heads = attention.heads
        k, v = (self.tokens @ matrices[n].mT for matrices in (self.keys, self.values))
        references = k.shape[1]
        shares = q.new_ones(1, 1, 1)
        if self.kind == "mip" and references > 1:
            phrase_k = attention.to_k(self.phrases)
            shares = merge_weights(object_maps(q, phrase_k, [1] * references, heads=heads))
        if self.gates:
            shares = shares * text_gate(text, self.gates[n])[:, None]
        probabilities = image_probabilities(q, k, heads=heads, joint=self.kind == "ip")
        return image_values(probabilities, v, shares).to(text)

    def projection(self):
        """{published name: weight} of what makes image tokens."""
        parts = {"proj": self.proj, "norm": self.norm}
        return {f"{part}.{name}": t for part, layer in parts.items() for name, t in layer.named_parameters()}

    def image_tokens(self, embeds):
        """(b, r, TOKENS, WIDTH) of embeddings (b, r, E)."""
        from pack.kernels.image_projection import projected

        return projected(embeds.flatten(0, 1), self.projection(), WIDTH).unflatten(0, embeds.shape[:2])

    def forward(self, noisy, timesteps, batch):
        """The noise predicted; `batch` is (rows (b, 77), embeddings (b, r, E), rows of words (b, r, 77))."""
        (denoiser,) = self.frozen
        rows, embeds, words = batch
        with torch.no_grad():
            context = denoiser.context(rows)
            # each word alone: its own row, after the one that starts a prompt
            self.phrases = torch.stack([denoiser.context(one)[:, 1] for one in words.unbind(1)], 1)
        self.tokens, self.queries = self.image_tokens(embeds), {}
        return denoiser.unet(noisy, timesteps, context)

    def tensors(self):
        """The file's contents, as published adapters name them."""
        found = {f"image_proj.{name}": t for name, t in self.projection().items()}
        for n, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            found[f"ip_adapter.{2 * n + 1}.to_k_ip.weight"] = key
            found[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"] = value
            if self.gates:
                found[f"ip_adapter.{2 * n + 1}.text_to_weight.weight"] = self.gates[n]
        return {name: t.detach().half().cpu().contiguous() for name, t in found.items()}

    def read(self, path):
        """Begins with an adapter's file; gates that it lacks stay as they are."""
        found = load_file(path)
        for name, t in self.projection().items():
            t.data.copy_(found[f"image_proj.{name}"])
        for n, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            key.data.copy_(found[f"ip_adapter.{2 * n + 1}.to_k_ip.weight"])
            value.data.copy_(found[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"])


def file_of(kind):
    """Where an adapter's file lies among the companions."""
    return Path("ipadapter") / f"{kind}_adapter.safetensors"


@torch.no_grad()
def embeddings(encoder, things, own):
    """(words, HUES, E) of each thing in each hue, cut out on white; `own` are the things' chromas."""
    made, hues = [], torch.arange(HUES) * FULL / HUES
    for word in range(len(WORDS)):
        generator, words = torch.Generator().manual_seed(word), torch.full((HUES,), word)
        pictures, _, _ = cut_outs(HUES, generator, things, own, hues, words, upright=True)
        made.append(encoder(pixels_of(pictures))[2])
    return torch.stack(made)


def batch_of(number, count, kind, table, things, own, vae):
    """(latents, (rows, embeddings, rows of words), generator) of pictures of things in free hues; singles or pairs."""
    generator = torch.Generator().manual_seed(number)
    pairs = kind == "mip" and number % 4
    shares = (0, 0, 0.6, 0.4) if pairs else (0, 1, 0, 0)
    scenes = settled(draw_scenes(count, generator, things=KNOWN_INDICES, shares=shares))
    # the one below, so that a held-out look stays out
    which = (draw_hues(scenes.thing, generator) * HUES / FULL).long()
    scenes = in_hues(scenes, which * FULL / HUES, own)
    texts = captions(scenes, generator)
    chance = torch.rand(count, 2, generator=generator)
    rows = [rows_of("" if chance[i, 0] < NO_CAPTION else text) for i, text in enumerate(texts)]
    shown = scenes.thing[:, : 2 if pairs else 1]
    embeds = table[shown, which[:, : shown.shape[1]]]
    embeds = torch.where(chance[:, 1, None, None].to(embeds.device) < NO_PICTURE, 0.0, embeds)
    words = torch.stack([torch.stack([rows_of(WORDS[t]) for t in row]) for row in shown.tolist()])
    latents = latents_of(vae, render(scenes, things)[0])
    return latents, (torch.stack(rows).to(latents.device), embeds, words.to(latents.device)), generator


def train(args):
    """Trains and writes the adapter; returns the Training."""
    host()
    things, own = tinted_world(args.cache, args.device)
    vae = load_autoencoder(args.folder / "autoencoder.safetensors", args.device)
    encoder = load_vision(args.out / VISION_FILE).model.float().to(args.device)
    table = embeddings(encoder, things, own)
    torch.manual_seed(0)
    denoiser = load_denoiser(args.folder).to(args.device).eval().requires_grad_(False)
    adapter = ImageAdapter(args.kind, denoiser)
    begin = args.start or args.out / file_of("ip")
    if args.start or (args.kind == "mip" and begin.is_file()):
        adapter.read(begin)
    training = Training(f"{args.kind}_adapter", adapter, args, decay=0.99, muon=True)
    bar = alphas_bar(args.device)

    def loss_of(number):
        latents, batch, generator = batch_of(number, args.batch, args.kind, table, things, own, vae)
        return noise_loss(training.network, latents, batch, bar, generator, lean=LEAN, begin=BEGIN_SHARE)

    training.run(loss_of)
    path = args.out / file_of(args.kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(training.network.tensors(), path, {"format": "pt"})
    return training


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--folder", type=Path, default=Path("nodes/pocket"), help="where the trained weights are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the files are")
    done = train(prepare(parser.parse_args(), batches=(16, 128)))
    print(f"{done.steps} steps", done.notes)
