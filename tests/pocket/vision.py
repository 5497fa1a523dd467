"""The image encoder: the host's CLIP vision network, so small that it only tells this world's things and their hues.

    COMFYUI_PATH=... python tests/pocket/vision.py --minutes 10

It learns to name the thing of a portrait and its hue, held-out things and looks included: as CLIP's encoder, it has
seen everything, where the UNet has not.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from companions import FOLDER, VISION_FILE
from free import FULL, in_hues
from looks import apart
from parts import VISION, host, vision
from safetensors.torch import save_file
from things import WORDS
from tints import tinted_world
from torch import nn
from training import Training, half, options, prepare
from world import draw_scenes, render

# how far a hue that it names may lie from the true one, in radians
NEAR = math.pi / 12


class Namer(nn.Module):
    """The encoder, and what reads things and hues from its embeddings while it learns."""

    def __init__(self):
        super().__init__()
        self.encoder = vision()
        width = self.encoder.visual_projection.out_features
        self.thing, self.hue = nn.Linear(width, len(WORDS)), nn.Linear(width, 2)

    def forward(self, pixels):
        embeds = self.encoder(pixels)[2]
        return self.thing(embeds), self.hue(embeds)


def cut_outs(count, generator, things, own, hues=None, words=None, upright=False):
    """(pictures (count, 3, SIDE, SIDE), thing, hue) of things cut out on white, as the MIP-Adapter node cuts.

    `own` are the things' chromas, as looks.chroma_of_things() gives them; hues (count,) in radians are any by default.
    """
    scenes = draw_scenes(count, generator, things=range(len(WORDS)), shares=(0, 1, 0, 0))
    if words is not None:
        scenes.thing[:, 0] = words
    hues = torch.rand(count, generator=generator) * FULL if hues is None else hues
    scenes = in_hues(scenes, hues[:, None], own)
    scenes.centre[:], scenes.base[:], scenes.slope[:] = 0.5, 1.0, 0.0
    scenes.size[:] = 1.0
    if upright:
        scenes.flip[:], scenes.angle[:], scenes.light[:] = 1.0, 0.0, 1.0
    device = things[0].device
    return render(scenes, things)[0], scenes.thing[:, 0].to(device), hues.to(device)


def pixels_of(pictures):
    """What the host's preparation makes of pictures (b, 3, h, w) in 0..1."""
    host()
    # it has moved, but all hosts know it there too
    from comfy.clip_vision import clip_preprocess

    return clip_preprocess(pictures.movedim(1, -1), size=VISION["image_size"]).float()


def loss_of(namer, pictures, thing, hue):
    """(what is trained on, {name: value}); the hue is learnt as a point on the circle."""
    with half(pictures.device):
        named, point = namer(pixels_of(pictures))
    named, point = named.float(), point.float()
    off = (point - torch.stack([hue.cos(), hue.sin()], 1)).square().sum(1)
    loss = F.cross_entropy(named, thing) + off.mean()
    near = apart(torch.atan2(point[:, 1], point[:, 0]), hue) < NEAR
    return loss, {"thing": (named.argmax(1) == thing).float().mean(), "hue": near.float().mean()}


def save(encoder, path):
    """Writes the encoder in half precision, its shape beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().half().cpu().contiguous() for k, v in encoder.state_dict().items()}
    save_file(state, path, {"config": json.dumps(VISION)})


def train(args):
    """Trains and writes the encoder; returns (Training, {what: share of fresh pictures that it gets right})."""
    things, own = tinted_world(args.cache, args.device)
    torch.manual_seed(0)
    training = Training("vision", Namer(), args)

    def step(number):
        generator = torch.Generator().manual_seed(number)
        return loss_of(training.network, *cut_outs(args.batch, generator, things, own))

    training.run(step)
    save(training.network.encoder, args.out / VISION_FILE)
    with torch.no_grad():
        fresh = cut_outs(args.measure, torch.Generator().manual_seed(10**9), things, own)
        _, right = loss_of(training.network, *fresh)
    return training, {name: float(value) for name, value in right.items()}


if __name__ == "__main__":
    parser = options(__doc__, rate=1e-3)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the file goes")
    done, right = train(prepare(parser.parse_args(), batches=(32, 256)))
    print(f"{done.steps} steps", done.notes, right)
