"""Trains an NPNet for the pocket model with the pack's own nodes: collects noise pairs, learns from them.

    COMFYUI_PATH=... python tests/pocket/golden_noise.py --prompts 400 --steps 2000

Its prompts have seeds and words of their own: those of the benchmarks come from other random numbers.
"""

import sys
from pathlib import Path

from companions import FOLDER
from questions import pairs, singles
from samples import encode, loaded, options

# the published network's shape with a twelfth of its width and few layers: 16 x 16 latents hold little
SMALL = {"width": 8, "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8), "vectors": 32, "values": 256}
# where the file lies among the companions
FILE = Path("npnet") / "npnet_pocket.safetensors"
SIDE, WIDTH = 128, 768
# of the questions whose prompts are used
SEED = 1000


def collect(parts, prompts, count, guidance):
    """Writes `count` noise pairs for each of so many prompts; returns the folder's name, below the host's output."""
    from support.models import execute
    from tqdm import tqdm

    from pack.nodes.golden_noise.npnet_training_node import NoisePairs

    model, clip, _ = parts
    negative = encode(clip, "")
    asked = singles(prompts // 2, SEED) + pairs(prompts - prompts // 2, SEED + 1)
    for number, question in enumerate(tqdm(asked)):
        (folder,) = execute(
            NoisePairs, model=model, positive=encode(clip, question.prompt()), negative=negative, count=count,
            seed=number * count, width=SIDE, height=SIDE, guidance=guidance,
        )  # fmt: skip
    return folder


def learn(folder, steps, batch, rate):
    """(NPNet, what its training says) of a small network trained on the pairs of a folder."""
    from support.models import execute

    from pack.kernels.noise_prompt import NPNetSizes, fresh_weights
    from pack.nodes.golden_noise.npnet_file import net_from
    from pack.nodes.golden_noise.npnet_training_node import TrainNPNet

    begin = net_from(fresh_weights(NPNetSizes(SIDE // 8, WIDTH, **SMALL), 0), "fresh")
    said = {"file_name": "npnet_pocket", "batch_size": batch, "learning_rate": rate}
    return execute(TrainNPNet, folder=folder, steps=steps, npnet=begin, **said)


def train(args):
    """Collects, trains and writes npnet_pocket.safetensors; returns what the training says."""
    parts = loaded(args)
    import folder_paths
    from safetensors.torch import save_file

    work = args.cache.resolve()
    folder_paths.set_output_directory(str(work))
    folder_paths.folder_names_and_paths["npnet"] = ([str(work)], {".safetensors"})
    net, report = learn(collect(parts, args.prompts, args.pairs, args.guidance), args.steps, args.batch, args.rate)
    path = args.out / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.half() for name, t in net.weights.items()}, path)
    return report


def parser():
    found = options(__doc__)
    found.add_argument("--cache", type=Path, default=Path("output/pocket"), help="where the pairs go")
    found.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    found.add_argument("--prompts", type=int, default=400)
    found.add_argument("--pairs", type=int, default=2, help="noise pairs of each prompt")
    found.add_argument("--guidance", type=float, default=4.0, help="of the step forward")
    found.add_argument("--steps", type=int, default=2000)
    found.add_argument("--batch", type=int, default=16)
    found.add_argument("--rate", type=float, default=1e-3)
    return found


if __name__ == "__main__":
    # where the tests' own helpers are
    sys.path.append(str(Path(__file__).parents[1]))
    print(train(parser().parse_args()))
