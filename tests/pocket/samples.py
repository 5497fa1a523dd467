"""Draws sheets of sample pictures with the pocket model on the real host.

COMFYUI_PATH=... python tests/pocket/samples.py --folder output/pocket --out output/samples.png
"""

import argparse
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from parts import host
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
PROMPTS = (
    "a dog on a blue background", "a rocket on a black background", "a big pizza on a green background",
    "a crown on a purple background", "a penguin on an orange background", "a robot on a yellow background",
    "a tree on a white background", "a small car on a pink background",
    "a dog on the left and a pizza on the right on a blue background",
    "a cat at the top and a bus at the bottom on a green background",
    "a heart on the left and a key on the right on a white background",
    "an apple and a clock on a gray background",
    "a whale at the bottom and a star at the top on a black background",
    "a horse on the right and a cake on the left on a teal background",
    "a sun on the left and a moon on the right on a purple background",
    "a panda and an umbrella on a red background",
)  # fmt: skip


def pack():
    """Loads the pack as the tests do, under the name `pack`, on the real host."""
    host()
    if "pack" not in sys.modules:
        spec = spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        sys.modules["pack"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["pack"])


def encode(clip, text):
    """A conditioning, as CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


@torch.inference_mode()
def draw(parts, prompt, seeds, steps=20, cfg=4.0, size=(128, 128), sampler="dpmpp_2m", scheduler="karras", noise=None):
    """Pictures (b, h, w, 3) of one prompt, one for each seed, with the host's sampling; or of a given noise."""
    import comfy.sample

    model, clip, vae = parts
    latent = torch.zeros(len(seeds), 4, size[0] // 8, size[1] // 8)
    if noise is None:
        noise = torch.cat([comfy.sample.prepare_noise(latent[:1], seed) for seed in seeds])
    positive, negative = encode(clip, prompt), encode(clip, "")
    samples = comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, disable_pbar=True, seed=seeds[0]
    )
    return vae.decode(samples)


def sheet(pictures, columns):
    """One PIL picture of pictures (b, h, w, 3) in 0..1."""
    rows = [torch.cat(list(row), 1) for row in pictures.split(columns)]
    rows[-1] = torch.nn.functional.pad(rows[-1], (0, 0, 0, rows[0].shape[1] - rows[-1].shape[1]))
    return Image.fromarray((torch.cat(rows) * 255).round().byte().numpy())


def options(description):
    """A parser with the options of everything that draws."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "nodes" / "pocket", help="where the weights are")
    parser.add_argument("--threads", type=int)
    return parser


def loaded(args):
    """(MODEL, CLIP, VAE) as these options say."""
    if args.threads:
        torch.set_num_threads(args.threads)
    pack()
    from pack.nodes.pocket.pocket_model import load_pocket

    return load_pocket(args.folder)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/samples.png"))
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    args = parser.parse_args()
    parts = loaded(args)
    pictures = [draw(parts, prompt, list(range(args.seeds))) for prompt in PROMPTS]
    sheet(torch.cat(pictures), 4 * args.seeds).save(args.out)
