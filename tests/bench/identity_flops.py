"""FLOPs of the nodes of people: a step as the host samples it, and the cheapest exact work beside it."""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import comfy.ops
import torch
from bench.flops import TEXT_TOKENS, costs, padding_counted, text, unet_config
from bench.image_flops import WORD
from support.face_adapters import face_file_shapes, story_shapes_of_file
from support.faces import GivenFaces, face
from support.image_adapters import LAYERS, shapes_of_file
from support.image_prompts import WordCLIP, references_of
from support.models import execute
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.faces import analysis
from pack.nodes.image_adapters.image_adapter import adapter_from
from pack.nodes.image_prompts.faceid_node import FaceID
from pack.nodes.image_prompts.instantid_node import InstantID
from pack.nodes.image_prompts.storymaker_node import StoryMaker

# Image tokens of a person, and of the ground.
TOKENS = {"faceid": 4, "portrait": 16, "instantid": 16, "storymaker": 20}
SIDES = {"sd15": 512, "sdxl": 1024}


def adapter(technique, kind):
    """An adapter of true widths: drawn where tokens are made, one number behind each matrix of a layer."""
    small = dict(hidden=16, rank=4, dim=64, depth=1)
    if technique == "instantid":
        shapes = shapes_of_file(kind, "plus", 2048, 512, dim=64, inner=64, depth=1)
    elif technique == "storymaker":
        shapes = story_shapes_of_file(LAYERS[kind])
    else:
        shapes = face_file_shapes(kind, tokens=TOKENS[technique], lora=False, **small)

    def tensor(name, shape):
        return (
            torch.zeros(()).expand(shape) if name.startswith("ip_adapter.") else torch.randn(shape) * shape[-1] ** -0.5
        )

    return adapter_from({name: tensor(name, shape) for name, shape in shapes.items()}, f"{technique}.bin")


class Vision:
    """encode_image() gives hidden states; what they are does not matter."""

    def encode_image(self, image, crop=True):
        return SimpleNamespace(penultimate_hidden_states=torch.zeros(1, 257, 1280))


@contextmanager
def given_faces(count):
    """Lets each picture show one face, while it is open."""
    original = analysis.faces_of
    faces = ([face(torch.randn(512), x=8, y=8, side=8)] for _ in range(count))
    analysis.faces_of = GivenFaces(*faces)
    try:
        yield
    finally:
        analysis.faces_of = original


def with_people(model, technique, kind, people, pictures=1, **inputs):
    """The MODEL with so many people of one node, each with so many pictures, through the public nodes."""
    words = [f"person {i}" for i in range(people)]
    ids = {word: [100 * i + t for t in range(WORD)] for i, word in enumerate(words, 1)}
    context, values = text(kind)[0]
    clip = WordCLIP({word: (ids[word], torch.zeros(1, TEXT_TOKENS, context.shape[-1]), values) for word in words})
    given = {
        "adapter": adapter(technique, kind),
        "face_analysis": None,
        "references": references_of(words, [pictures] * people),
    }
    node = {"instantid": InstantID, "storymaker": StoryMaker}.get(technique, FaceID)
    given |= {"clip_vision": Vision()} if technique == "storymaker" else {"clip": clip}
    given |= {} if technique == "instantid" else {"lora_strength": 0.0}
    with given_faces(people * pictures):
        return execute(node, model=model, **given | inputs)[0]


def attention_work(technique, kind, people, pictures=1):
    """FLOPs of a step with CFG beside the plain one: attention to the image tokens, and the maps of several words.

    Per layer of n positions and c channels: all people on the conditional row; on the other one empty face for all, or
    with StoryMaker each in its place. The words' keys are read once per run: see `words_work`.
    """
    tokens = TOKENS[technique] * (pictures if technique == "portrait" else 1)
    seen = tokens * people
    unseen = TOKENS[technique]
    if technique == "storymaker":
        seen = unseen = tokens * (people + 1)
    words = _words(technique, people)
    return sum(n * c * (4 * (seen + unseen) + 2 * words) for n, c in _layers(kind))


def words_work(technique, kind, people):
    """FLOPs of the first step of a run beside: the words of several people, read by the text's own matrices."""
    context = {"sd15": 768, "sdxl": 2048}[kind]
    return sum(2 * _words(technique, people) * c * context for _, c in _layers(kind))


def _words(technique, people):
    return WORD * people if people > 1 and technique != "storymaker" else 0


def _layers(kind):
    """(positions, channels) of each cross-attention."""
    return costs(kind, SIDES[kind], range({"sd15": 16, "sdxl": 70}[kind])).blocks


def net_config(width=320):
    """The host's configuration of an SDXL ControlNet."""
    config = unet_config("sdxl", width)
    for name in ("out_channels", "use_temporal_attention", "use_temporal_resblock"):
        config.pop(name)
    return config | {"hint_channels": 3, "dtype": torch.float32}


def net_flops(rows, side=1024):
    """FLOPs of one pass of IdentityNet."""
    net = comfy.cldm.cldm.ControlNet(**net_config(), device="meta", operations=comfy.ops.disable_weight_init)
    latent = side // 8
    with FlopCounterMode(display=False) as counter, padding_counted():
        _run_on_meta(net, rows, latent, side)
    return counter.get_total_flops()


def _run_on_meta(net, rows, latent, side):
    return net(
        x=torch.empty(rows, 4, latent, latent, device="meta"),
        hint=torch.empty(rows, 3, side, side, device="meta"),
        timesteps=torch.empty(rows, device="meta"),
        context=torch.empty(rows, 16, 2048, device="meta"),
        y=torch.empty(rows, 2816, device="meta"),
    )


def hollow_net():
    """An IdentityNet of the host that is loaded as any other, but computes only shapes; see `hollow_model`."""
    net = comfy.cldm.cldm.ControlNet(**net_config(), device="meta", operations=comfy.ops.disable_weight_init)
    inside = copy.deepcopy(net)
    for module in net.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                one = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
                module._parameters[name] = torch.nn.Parameter(one, requires_grad=False)

    def forward(x, hint, timesteps, context, y):
        given = {"hint": hint, "timesteps": timesteps, "context": context, "y": y}
        found = inside(x=x.to("meta"), **{name: t.to("meta") for name, t in given.items()})
        # what comes out has numbers again, one behind all
        return {name: [x.new_zeros(()).expand(t.shape) for t in values] for name, values in found.items()}

    net.forward = forward
    found = comfy.controlnet.ControlNet(load_device=torch.device("cpu"))
    found.control_model = net
    cpu = torch.device("cpu")
    found.control_model_wrapped = comfy.model_patcher.ModelPatcher(net, load_device=cpu, offload_device=cpu)
    return found
