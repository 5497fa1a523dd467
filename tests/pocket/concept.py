"""Teaches the trained pocket model one held-out thing: as an ordinary LoRA, or as an ED-LoRA with words of its own.

    COMFYUI_PATH=... python tests/pocket/concept.py lion --kind lora --minutes 4 --folder nodes/pocket
    COMFYUI_PATH=... python tests/pocket/concept.py car --hue 270   # or a known thing in a look that no word names

An ordinary LoRA (kohya's names, UNet only) learns the thing under its plain word, "lion". An ED-LoRA (Mix-of-Show,
arXiv 2305.18292) has two new words, <lion_1> <lion_2>, with a row for each cross-attention, and LoRAs in UNet and text
encoder. Both have rank 4. Training pictures show the thing alone: what it does beside others is what is measured.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from autoencoder import latents_of
from autoencoder import load as load_autoencoder
from companions import FOLDER
from denoiser import alphas_bar, noise_loss
from denoiser import load as load_denoiser
from fetch import gather
from free import in_hues
from looks import chroma_of_things
from parts import CONTEXT
from safetensors.torch import save_file
from samples import pack
from things import WORDS
from tints import tinted
from torch import nn
from training import Training, options, prepare
from vocabulary import UNKNOWN, rows_of
from world import captions, draw_scenes, load_things, render, settled

RANK = 4
# denoiser.noise_loss()'s: left to whole pictures at all noise levels, it would read looks from their last traces
LEAN, BEGIN_SHARE = 0.5, 0.5
# how wide prompts are where files are used; the pocket model's are narrower and repeat
WIDTH = 768
# diffusers' names of the UNet's transformers in order of execution, and the host's
BLOCKS = {
    **{f"down_blocks.{i}.attentions.{j}": f"input_blocks.{1 + 3 * i + j}.1" for i in range(3) for j in range(2)},
    "mid_block.attentions.0": "middle_block.1",
    **{f"up_blocks.{i}.attentions.{j}": f"output_blocks.{3 * i + j}.1" for i in range(1, 4) for j in range(3)},
}
# those whose outputs Concept Conductor takes over from a concept
DECODER = tuple(name for name in BLOCKS if name.startswith("up_blocks"))
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
KINDS = ("lora", "edlora")


class Concept(nn.Module):
    """What learns: down and up of each adapted layer, and the rows of new words; the frozen networks stand aside."""

    def __init__(self, kind, word, denoiser, row, blocks=tuple(BLOCKS)):
        super().__init__()
        self.kind, self.word = kind, word
        # in a tuple, or the frozen networks would count as what learns
        self.frozen = (denoiser,)
        self.places, layers = {}, {}
        for name in blocks:
            host = BLOCKS[name]
            for attention in ("attn1", "attn2"):
                for projection in PROJECTIONS:
                    layer = f"{name}.transformer_blocks.0.{attention}.{projection}"
                    layers[f"unet.{layer}"] = denoiser.unet.get_submodule(
                        f"{host}.transformer_blocks.0.{attention}.{projection}"
                    )
        if kind == "edlora":
            for i in range(len(denoiser.text_encoder.text_model.encoder.layers)):
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    layer = f"text_model.encoder.layers.{i}.self_attn.{projection}"
                    layers[f"text_encoder.{layer}"] = denoiser.text_encoder.get_submodule(layer)
        self.downs, self.ups = nn.ParameterDict(), nn.ParameterDict()
        for name, layer in layers.items():
            key = name.replace(".", "/")
            self.downs[key] = nn.Parameter(torch.randn(RANK, layer.in_features) / math.sqrt(layer.in_features))
            self.ups[key] = nn.Parameter(torch.zeros(layer.out_features, RANK))
            layer.register_forward_hook(self._adapter(key))
        # begins as the embedding of the plain word; several rows each where words differ by layer
        if kind == "edlora":
            begin = denoiser.text_encoder.get_input_embeddings().weight.std() * torch.randn(2, 1, CONTEXT) * 0.5
            self.rows = nn.Parameter((row + begin).expand(2, len(BLOCKS), CONTEXT).clone())
            for i, host in enumerate(BLOCKS.values()):
                attention = denoiser.unet.get_submodule(f"{host}.transformer_blocks.0.attn2")
                attention.register_forward_pre_hook(self._own_context(i), with_kwargs=True)
        else:
            self.register_buffer("rows", row.expand(1, 1, CONTEXT).clone())

    @property
    def named(self):
        """What prompts call it."""
        return self.word if self.kind == "lora" else f"<{self.word}_1> <{self.word}_2>"

    def _adapter(self, key):
        def add(layer, inputs, output):
            return output + F.linear(F.linear(inputs[0], self.downs[key]), self.ups[key])

        return add

    def _own_context(self, i):
        def choose(attention, inputs, named):
            return inputs, named | {"context": named["context"][i], "value": None}

        return choose

    def contexts(self, rows):
        """(layers, b, 77, CONTEXT), or (b, 77, CONTEXT) for one word for all layers, of rows (b, 77) of captions."""
        (denoiser,) = self.frozen
        table = denoiser.text_encoder.get_input_embeddings().weight
        # the n-th unknown word of a caption is the n-th of ours
        which = (rows == UNKNOWN).cumsum(1).clamp_min(1) - 1
        embedded = []
        for layer in range(self.rows.shape[1]):
            own = self.rows[:, layer][which.clamp_max(len(self.rows) - 1)]
            embedded.append(torch.where((rows == UNKNOWN)[..., None], own, table[rows]))
        embedded = torch.cat(embedded)
        made = denoiser.text_encoder.text_model(embeds=embedded, num_tokens=[1] * len(embedded), dtype=embedded.dtype)
        made = made[0].unflatten(0, (self.rows.shape[1], -1))
        return made if self.kind == "edlora" else made[0]

    def forward(self, noisy, timesteps, rows):
        context = self.contexts(rows)
        unet = self.frozen[0].unet
        return unet(noisy, timesteps, context)

    def tensors(self):
        """The file's contents, for prompts of SD1.5's width."""
        times = WIDTH // CONTEXT
        found = {}
        for key, down in self.downs.items():
            name, up = key.replace("/", "."), self.ups[key]
            if name.endswith(("attn2.to_k", "attn2.to_v")):
                down = down.repeat(1, times) / times
            elif name.startswith("text_encoder."):
                down, up = down.repeat(1, times) / times, up.repeat(times, 1)
            if self.kind == "lora":
                name = "lora_" + name.replace(".", "_")
            found[f"{name}.lora_down.weight"], found[f"{name}.lora_up.weight"] = down, up
        if self.kind == "edlora":
            for i, rows in enumerate(self.rows):
                found[f"new_concept_embedding.<{self.word}_{i + 1}>"] = rows.repeat(1, times)
        return {name: t.detach().half().cpu().contiguous() for name, t in found.items()}


def plain_row(word, folder):
    """The row (CONTEXT,) that the loaded pocket model gives a word that it never learnt."""
    pack()
    from comfy.sd1_clip import SD1Tokenizer

    from pack.nodes.pocket.pocket_files import TABLE, all_tokens, read_part

    tensors, _, metadata = read_part("text_encoder", folder)
    number = SD1Tokenizer().tokenize_with_weights(word)["l"][0][1][0]
    return all_tokens(tensors, float(metadata["deviation"]))[TABLE][number].float()


def examples(word, named, count, things, vae, seed=0, hue=None):
    """(latents (count, 4, 16, 16), rows (count, 77)) of pictures that show the thing alone, with their captions.

    named: what captions call it; hue: in degrees, the thing's own one by default.
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = settled(draw_scenes(count, generator, things=(WORDS.index(word),), shares=(0, 1, 0, 0)))
    if hue is not None:
        scenes = in_hues(scenes, torch.full((count, 1), math.radians(hue)), chroma_of_things(things).cpu())
    rows = torch.stack([rows_of(text.replace(word, named)) for text in captions(scenes, generator)])
    latents = [latents_of(vae, pictures) for pictures in render(scenes, things)[0].split(64)]
    return torch.cat(latents), rows.to(things[0].device)


def loss_on(latents, rows, training):
    """loss_of(step) for Training.run(): on a few of these pictures in each step, with their captions' rows."""
    bar = alphas_bar(latents.device)

    def loss_of(step):
        generator = torch.Generator().manual_seed(step)
        which = torch.randint(len(latents), (training.args.batch,), generator=generator)
        return noise_loss(training.network, latents[which], rows[which], bar, generator, lean=LEAN, begin=BEGIN_SHARE)

    return loss_of


def train(args):
    """Trains and writes the file; returns the Training."""
    things = tinted(load_things(gather(args.cache), args.device))
    vae = load_autoencoder(args.folder / "autoencoder.safetensors", args.device)
    torch.manual_seed(0)
    denoiser = load_denoiser(args.folder).to(args.device).eval().requires_grad_(False)
    blocks = BLOCKS if args.blocks == "all" else DECODER
    concept = Concept(args.kind, args.word, denoiser, plain_row(args.word, args.folder), blocks)
    name = f"{args.word}_{args.kind}" if args.hue is None else f"{args.word}_{args.hue}_{args.kind}"
    training = Training(name, concept, args, decay=0.99)
    latents, rows = examples(args.word, concept.named, args.pictures, things, vae, hue=args.hue)
    training.run(loss_on(latents, rows, training))
    path = args.out / "loras" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(concept.tensors(), path, {"format": "pt", "ss_network_dim": str(RANK)})
    return training


if __name__ == "__main__":
    parser = options(__doc__, rate=2e-3)
    parser.add_argument("word", choices=list(WORDS), metavar="thing")
    parser.add_argument("--kind", choices=KINDS, default="lora")
    parser.add_argument("--folder", type=Path, default=Path("nodes/pocket"), help="where the trained weights are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    parser.add_argument("--hue", type=int, help="its mean hue in degrees (default: its own)")
    parser.add_argument("--blocks", choices=("all", "decoder"), default="all", help="what of the UNet learns")
    parser.add_argument("--pictures", type=int, default=512, help="how many pictures of the thing it sees")
    done = train(prepare(parser.parse_args(), batches=(16, 128)))
    print(f"{done.steps} steps", done.notes)
