"""The image encoder: the host's CLIP vision network, so small that it only tells this world's things and their hues.

    COMFYUI_PATH=... python tests/pocket/vision.py --minutes 10

It learns to name the thing of a portrait and the angle by which its hues are turned, held-out things included: as
CLIP's encoder, it has seen everything, where the UNet has not.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from companions import FOLDER, VISION_FILE
from fetch import gather
from looks import TURN, TURNS
from parts import VISION, host, vision
from safetensors.torch import save_file
from things import WORDS
from torch import nn
from training import Training, half, options, prepare
from world import draw_scenes, load_things, render


class Namer(nn.Module):
    """The encoder, and what reads things and turns from its embeddings while it learns."""

    def __init__(self):
        super().__init__()
        self.encoder = vision()
        width = self.encoder.visual_projection.out_features
        self.thing, self.turn = nn.Linear(width, len(WORDS)), nn.Linear(width, TURNS)

    def forward(self, pixels):
        embeds = self.encoder(pixels)[2]
        return self.thing(embeds), self.turn(embeds)


def cut_outs(count, generator, things, turns=None, words=None, upright=False):
    """(pictures (count, 3, SIDE, SIDE), thing, turn) of things cut out on white, as the MIP-Adapter node cuts."""
    scenes = draw_scenes(count, generator, things=range(len(WORDS)), shares=(0, 1, 0, 0))
    if words is not None:
        scenes.thing[:, 0] = words
    which = torch.randint(TURNS, (count,), generator=generator) if turns is None else turns
    scenes.turn[:, 0] = which * TURN
    scenes.centre[:], scenes.base[:], scenes.slope[:] = 0.5, 1.0, 0.0
    scenes.size[:] = 1.0
    if upright:
        scenes.flip[:], scenes.angle[:], scenes.light[:] = 1.0, 0.0, 1.0
    return render(scenes, things)[0], scenes.thing[:, 0].to(things[0].device), which.to(things[0].device)


def pixels_of(pictures):
    """What the host's preparation makes of pictures (b, 3, h, w) in 0..1."""
    host()
    # it has moved, but all hosts know it there too
    from comfy.clip_vision import clip_preprocess

    return clip_preprocess(pictures.movedim(1, -1), size=VISION["image_size"]).float()


def loss_of(namer, pictures, thing, turn):
    """(what is trained on, {name: value})"""
    with half(pictures.device):
        named, turned = namer(pixels_of(pictures))
    named, turned = named.float(), turned.float()
    loss = F.cross_entropy(named, thing) + F.cross_entropy(turned, turn)
    right = {"thing": (named.argmax(1) == thing).float().mean(), "turn": (turned.argmax(1) == turn).float().mean()}
    return loss, right


def save(encoder, path):
    """Writes the encoder in half precision, its shape beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in encoder.state_dict().items()}
    save_file(state, path, {"config": json.dumps(VISION)})


def train(args):
    """Trains and writes the encoder; returns (Training, {what: share of fresh pictures that it gets right})."""
    things = load_things(gather(args.cache), args.device)
    torch.manual_seed(0)
    training = Training("vision", Namer(), args)

    def step(number):
        generator = torch.Generator().manual_seed(number)
        return loss_of(training.network, *cut_outs(args.batch, generator, things))

    training.run(step)
    save(training.network.encoder, args.out / VISION_FILE)
    with torch.no_grad():
        fresh = cut_outs(args.measure, torch.Generator().manual_seed(10**9), things)
        _, right = loss_of(training.network, *fresh)
    return training, {name: float(value) for name, value in right.items()}


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    done, right = train(prepare(parser.parse_args(), batches=(32, 256)))
    print(f"{done.steps} steps", done.notes, right)
