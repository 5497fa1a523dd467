"""Teaches the trained pocket model a known thing in one look, as files of KronA, Custom Diffusion and NeTI hold it.

    COMFYUI_PATH=... python tests/pocket/look_files.py frog --hue 330 --kind krona --minutes 6 --batch 8 --rate 5e-3

KronA changes all attention projections and is called by the plain word. Custom Diffusion changes keys and values of
the cross-attentions, in its compressed layout, and has a word <new1> that stands before the plain one. NeTI changes
nothing: a small network makes its word, <frog>, for each timestep and layer.
"""

from pathlib import Path

import torch
from autoencoder import load as load_autoencoder
from companions import FOLDER
from concept import examples, loss_on
from denoiser import load as load_denoiser
from fetch import gather
from look_networks import CustomDiffusion, KronA, NeTI
from things import KNOWN
from tints import tinted
from training import Training, options, prepare
from vocabulary import rows_of
from world import load_things

KINDS = {"krona": KronA, "custom_diffusion": CustomDiffusion, "neti": NeTI}


def train(args):
    """Trains and writes the file; returns (the Training, the path)."""
    things = tinted(load_things(gather(args.cache), args.device))
    vae = load_autoencoder(args.folder / "autoencoder.safetensors", args.device)
    torch.manual_seed(0)
    denoiser = load_denoiser(args.folder).to(args.device).eval().requires_grad_(False)
    row = denoiser.text_encoder.get_input_embeddings().weight[rows_of(args.word)[1]]
    taught = KINDS[args.kind](denoiser, row, args.word)
    training = Training(f"{args.word}_{args.hue}_{args.kind}", taught, args, decay=0.99)
    latents, rows = examples(args.word, taught.named, args.pictures, things, vae, hue=args.hue)
    training.run(loss_on(latents, rows, training))
    return training, taught.write(args.out)


if __name__ == "__main__":
    parser = options(__doc__, rate=2e-3)
    parser.add_argument("word", choices=list(KNOWN), metavar="thing")
    parser.add_argument("--kind", choices=list(KINDS), default="krona")
    parser.add_argument("--hue", type=int, required=True, help="its mean hue in degrees")
    parser.add_argument("--folder", type=Path, default=Path("nodes/pocket"), help="where the trained weights are")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    parser.add_argument("--pictures", type=int, default=512, help="how many pictures of the thing it sees")
    done, path = train(prepare(parser.parse_args(), batches=(16, 128)))
    print(f"{path}: {done.steps} steps", done.notes)
