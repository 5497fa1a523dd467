"""Hostile values for the inputs of every node of the pack: what a workflow file, a wire or another node may bring."""

import random
import shutil
from pathlib import Path

import folder_paths
import torch
from support import edloras, npnets
from support import resadapter_sets as sets
from support.clips import encoded, tiny_clip
from support.concepts import conducted, random_concepts
from support.golden_data import case
from support.image_prompts import ADAPTERS, GreyVision, TinyWords, adapter_of, references_of, with_pictures
from support.models import conditioning, sample, tiny_model
from support.noise_pairs import make_pairs
from support.references import PixelVAE, TinyClip, draw, prompt, references, with_references

from fuzz.files import FOLDERS, Plain
from fuzz.verdict import SECONDS, faults_of, listening
from pack.nodes import NODES
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.host.messages import visible
from pack.nodes.references.references_node import ReferencePreview

WORDS = ["", " ", "a" * 100_000, "<img src=x onerror=alert(1)>", "\x00", "\ud800", "\u202e", "\n", "../..",
         "/etc/passwd", "CON", "[[a|b]]", "%s{0}", "\u732b", "1" * 5000, "0-99999999999", "nan", "-1", "a\\b",
         "."]  # fmt: skip
NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e-308, -1.0, 0.0, 1.0, 2.0, 1e10, 0.3]
WHOLE = [0, 1, -1, 2, 3, 7, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 64), 10**400]
# What costs by its value is kept small here: {input: most}.
COSTLY = {"pixel_width": 300, "pixel_height": 300, "width": 256, "height": 256, "count": 2, "steps": 5, "repeats": 2,
          "kmeans_restarts": 3, "inversion_steps": 8, "operations": 3, "clusters": 20, "batch_size": 3,
          "custom_width": 16384, "custom_height": 16384}  # fmt: skip


# Wires of these kinds are not made up here yet: the nodes that have them are tried by their own tests alone.
NOT_MADE = {
    "CONTROL_NET",
    "PERSONALIZATION_CLASS_PICTURES",
    "PERSONALIZATION_CROP",
    "PERSONALIZATION_FACE_ANALYSIS",
    "PERSONALIZATION_PANEL",
    "PERSONALIZATION_SAM",
    "PERSONALIZATION_TRAINING_OPTIONS",
    "PERSONALIZATION_TRAINING_PICTURES",
}
# Seconds for a node with a MODEL, some of which sample or invert by themselves.
SAMPLING = 4.0
# It draws whole pictures, which takes longer than a node may here; its own tests try it.
SAMPLES = {"PersonalizationTrainClassPictures"}
TRIED = [
    node
    for node in NODES
    if not NOT_MADE & {one.get_io_type() for one in node.define_schema().inputs}
    and node.define_schema().node_id not in SAMPLES
]


class Widgets:
    """Sound inputs for every node that is tried, and the same with some of them wrong."""

    def __init__(self, base):
        self.base, self.model, self.clip = Path(base), tiny_model(), tiny_clip()
        self.text = prompt(self.model, 1, tokens=77)
        self.pictures, self.conducted = with_pictures(self.model), conducted(self.model)
        self.latents = {id(model): self.run(model) for model in (self.pictures, self.conducted)}

    def faults(self, seed, number):
        """(what was done, its faults) for one node; the same for the same two numbers."""
        chance = random.Random(f"{seed}/{number}")
        self.fill()
        node = TRIED[number % len(TRIED)]
        inputs, wrong = self.inputs(node, chance), {}
        for one in chance.sample(list(inputs), min(len(inputs), chance.choice([1, 1, 2, 3]))):
            wrong[one] = self.wrong(chance, node, one, inputs[one])
        torch.manual_seed(number)
        with listening() as said:
            limit = SAMPLING if "model" in inputs else SECONDS
            _, faults = faults_of(lambda: self.use(node, {**inputs, **wrong}, said, chance), said, limit=limit)
        told = ", ".join(f"{name}={_shown(value)}" for name, value in wrong.items())
        return f"{node.__name__} {told}", faults

    def fill(self):
        """The files that the nodes choose from."""
        for folder in (*FOLDERS, "output", "user", "pictures"):
            shutil.rmtree(self.base / folder, ignore_errors=True)
            (self.base / folder).mkdir()
        folder_paths.filename_list_cache.clear()
        torch.save(npnets.small_weights(), self.base / "npnet" / "net.pth")
        torch.save(dict(case("mip_adapter/weights_sd15_ip_adapter")[0]), self.base / "ipadapter" / "ip.bin")
        lora, norms = sets.golden_set("tiny_resadapter_v2_sd1.5")
        sets.put(self.base / "resadapter" / "mine", **{sets.LORA: lora, sets.NORMS: norms})
        edloras.put(self.base / "loras" / "cat.pth", edloras.tiny_contents())
        make_pairs()

    def inputs(self, node, chance):
        """A sound value for each input."""
        schema = node.define_schema()
        return {one.id: self.sound(node, one, chance) for one in schema.inputs}

    def sound(self, node, one, chance):
        kind, name = one.get_io_type(), one.id
        if kind in ("INT", "FLOAT", "STRING", "BOOLEAN"):
            value = {"seed": 0, "learning_rate": 1e-3, "folder": "npnet_pairs"}.get(name, one.default)
            return min(value, COSTLY[name]) if name in COSTLY and isinstance(value, int) else value
        if kind == "COMBO":
            # what is installed decides which others there are
            return "cpu" if name == "provider" else chance.choice(one.options)
        shown = {"MIPMaps": self.pictures, "ConceptMaskPictures": self.conducted}.get(node.__name__, self.model)
        return {
            "MODEL": lambda: shown,
            "CLIP": lambda: self.clip_for(node),
            "VAE": PixelVAE,
            "IMAGE": lambda: torch.rand(1, 64, 64, 3),
            "MASK": lambda: (torch.rand(1, 64, 64) > 0.5).float(),
            "LATENT": lambda: self.latents.get(id(shown)),
            "CONDITIONING": lambda: self.text,
            "NOISE": Plain,
            "CLIP_VISION": GreyVision,
            "PERSONALIZATION_REFERENCES": lambda: (
                references_of(["a cat", "hat"]) if node.__name__ == "MIPAdapter" else references(2)
            ),
            "PERSONALIZATION_CONCEPTS": lambda: random_concepts(self.model),
            "PERSONALIZATION_IMAGE_ADAPTER": lambda: adapter_of(ADAPTERS["sd15"]),
            "PERSONALIZATION_NPNET": lambda: net_from(npnets.small_weights(), "net"),
        }[kind.split(",")[0]]()

    def clip_for(self, node):
        """Any text does for references, words for MIP-Adapter; all other nodes get a real text encoder."""
        stubs = {"MultiReferenceSelfAttention": TinyClip, "DreamTuner": TinyClip, "MIPAdapter": TinyWords}
        return stubs[node.__name__](self.model) if node.__name__ in stubs else self.clip

    def wrong(self, chance, node, name, value):
        one = next(i for i in node.define_schema().inputs if i.id == name)
        kind = one.get_io_type()
        if kind == "FLOAT":
            return chance.choice([*NUMBERS, one.min, one.max])
        if kind == "INT":
            ends = [one.min, one.max, (one.max or 0) + 1, (one.min or 0) - 1]
            found = chance.choice([*WHOLE, *(end for end in ends if end is not None)])
            return min(found, COSTLY.get(name, found))
        if kind in ("STRING", "COMBO"):
            return chance.choice([*WORDS, *(one.options if kind == "COMBO" else ())])
        if kind == "BOOLEAN":
            return not value
        if isinstance(value, torch.Tensor):
            return odd_picture(chance, value)
        if kind == "LATENT":
            return chance.choice([{}, {"samples": odd_picture(chance, value["samples"])}])
        if kind == "CONDITIONING":
            return chance.choice([[], value * 2, [[odd_text(chance, value[0][0]), dict(value[0][1])]],
                                  [[value[0][0], {**value[0][1], "strength": float("nan")}]]])  # fmt: skip
        if kind.startswith("PERSONALIZATION") and isinstance(value, tuple):
            return chance.choice([(), None, value * 2, value[:1]])
        return value

    def use(self, node, inputs, said, chance):
        """Runs a node, and with what it gives whatever comes next in a graph."""
        check = getattr(node, "validate_inputs", None)
        if check is not None and "validate_inputs" in vars(node):
            asked = [name for name in inputs if name in check.__func__.__code__.co_varnames]
            told = check(**{name: chance.choice([inputs[name], inputs[name], [], {}, 3, None]) for name in asked})
            if told is not True:
                assert isinstance(told, str)
                return
        outputs = node.execute(**inputs).result
        if not inputs:
            # a checkpoint, which reads no prompt of the tiny one
            return
        for value in outputs or ():
            if hasattr(value, "model_options"):
                self.run(value)
            elif hasattr(value, "generate_noise"):
                _finite(value.generate_noise({"samples": torch.zeros(1, 4, 8, 8)}), said, "noise")
            elif isinstance(value, torch.Tensor):
                _finite(value, said, "a picture")
            elif hasattr(value, "cond_stage_model"):
                encoded(value, "a cat")
            elif isinstance(value, str):
                shown = all(map(visible, value.replace("\n", "")))
                assert len(value) < 2000 and shown, f"a report of {value[:40]!r}"
        self.chained(node, outputs)

    def chained(self, node, outputs):
        kind = node.define_schema().outputs[0].get_io_type()
        if kind == "PERSONALIZATION_REFERENCES":
            ReferencePreview.execute(references=outputs[0])
            self.run(with_references(self.model, outputs[0]))
            self.run(with_pictures(self.model, references=outputs[0]))
        if kind == "PERSONALIZATION_CONCEPTS":
            self.run(conducted(self.model, outputs[0]))

    def run(self, model):
        return {"samples": sample(model, self.text, conditioning(draw(1, 77, 32, seed=9)), steps=1)}


def odd_picture(chance, t):
    """A picture, mask or latent as another node may give it."""
    height, width = chance.choice([(1, 1), (1, 500), (500, 1), (37, 91), (0, 5), (5, 0), (8, 8), (640, 64)])
    channels = list(t.shape[3:])
    return chance.choice(
        [
            lambda: torch.full_like(t, float("nan")),
            lambda: torch.where(torch.rand_like(t) > 0.99, float("inf"), t),
            lambda: t * -1e30,
            lambda: t * 0,
            lambda: t[:0],
            lambda: t[0],
            lambda: t[None],
            lambda: t.expand(3, *t.shape[1:]).clone(),
            lambda: torch.rand(len(t), height, width, *channels),
            lambda: torch.rand(*t.shape[:-1], chance.choice([0, 1, 2, 4, 5])),
            lambda: t.to(
                chance.choice([torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool])
            ),
            lambda: torch.tensor(1.0),
        ]
    )()


def odd_text(chance, t):
    """The embeddings of a prompt of another model, or of none."""
    return chance.choice(
        [
            lambda: torch.full_like(t, float("nan")),
            lambda: t[..., :5],
            lambda: t[:, :0],
            lambda: t[:0],
            lambda: t[0],
            lambda: torch.cat([t, t], -1),
            lambda: torch.cat([t, t[:, :3]], 1),
            lambda: t.half(),
            lambda: t.expand(2, -1, -1),
        ]
    )()


def _finite(tensor, said, what):
    if tensor.is_floating_point() and not torch.isfinite(tensor).all() and not said:
        raise AssertionError(f"{what} of values that are no numbers, without a word")


def _shown(value):
    if isinstance(value, torch.Tensor):
        finite = bool(torch.isfinite(value.float()).all()) if value.numel() else "empty"
        return f"{list(value.shape)} {value.dtype} finite {finite}"
    return repr(value)[:60]
