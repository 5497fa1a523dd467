"""Trains an NPNet for the pocket model with the pack's own nodes: collects noise pairs, learns from them.

    COMFYUI_PATH=... python tests/pocket/golden_noise.py --prompts 400 --steps 2000

Its prompts have seeds and words of their own: those of the benchmarks come from other random numbers. A pair is kept
if the judge is surer of what was asked for in the picture from golden noise than in the one from plain noise, as the
paper keeps pairs by a reward (arXiv 2411.09502).
"""

import sys
from pathlib import Path

import judge
from companions import FOLDER
from questions import pairs, singles
from samples import draw, encode, loaded, options
from things import WORDS

# the published network's shape with a twelfth of its width and few layers: 16 x 16 latents hold little
SMALL = {"width": 8, "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8), "vectors": 32, "values": 256}
# where the file lies among the companions
FILE = Path("npnet") / "npnet_pocket.safetensors"
SIDE, WIDTH = 128, 768
# of the questions whose prompts are used
SEED = 1000


def sureness(question, picture, eye):
    """How likely the judge finds the thing of a question that is least likely in a picture (1, h, w, 3)."""
    cells = eye.look(picture.movedim(-1, 1).float()).cells[0]
    return min(cells[1 + WORDS.index(word)].exp().max().item() for word in question.things)


def keep_better(question, paths, drawn, eye):
    """Removes the noise pairs whose golden noise does not make the judge surer; `drawn(noise)` gives a picture."""
    from safetensors.torch import load_file

    for path in paths:
        pair = load_file(path)
        plain, golden = (sureness(question, drawn(pair[name]), eye) for name in ("noise", "golden"))
        if golden <= plain:
            path.unlink()


def collect(parts, prompts, count, guidance, eye, steps):
    """Writes up to `count` noise pairs for each of so many prompts; returns the folder's name, below the host's output.

    Pictures for the judge have so many steps.
    """
    import folder_paths
    from support.models import execute
    from tqdm import tqdm

    from pack.nodes.golden_noise.npnet_training_node import NoisePairs

    model, clip, _ = parts
    negative, known = encode(clip, ""), set()
    asked = singles(prompts // 2, SEED) + pairs(prompts - prompts // 2, SEED + 1)
    for number, question in enumerate(tqdm(asked)):
        text = question.prompt()
        (folder,) = execute(
            NoisePairs, model=model, positive=encode(clip, text), negative=negative, count=count,
            seed=number * count, width=SIDE, height=SIDE, guidance=guidance,
        )  # fmt: skip

        def drawn(noise, text=text):
            return draw(parts, text, [0], steps=steps, cfg=guidance, noise=noise)

        written = set((Path(folder_paths.get_output_directory()) / folder).glob("pair_*.safetensors"))
        keep_better(question, written - known, drawn, eye)
        known |= written
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
    folder = collect(parts, args.prompts, args.pairs, args.guidance, judge.load(args.judge), args.drawn)
    net, report = learn(folder, args.steps, args.batch, args.rate)
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
    found.add_argument("--guidance", type=float, default=3.0, help="of the step forward, and of pictures for the judge")
    found.add_argument("--judge", type=Path, default=judge.WEIGHTS, help="the judge's weights")
    found.add_argument("--drawn", type=int, default=8, help="steps of the pictures for the judge")
    found.add_argument("--steps", type=int, default=2000)
    found.add_argument("--batch", type=int, default=16)
    found.add_argument("--rate", type=float, default=1e-3)
    return found


if __name__ == "__main__":
    # where the tests' own helpers are
    sys.path.append(str(Path(__file__).parents[1]))
    print(train(parser().parse_args()))
