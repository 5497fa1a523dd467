"""Damaged files of every kind that the pack reads, handed to the nodes that read them."""

import contextlib
import os
import random
import shutil
import tempfile
from pathlib import Path

import folder_paths
import torch
from PIL import Image
from support import edloras, npnets
from support import resadapter_sets as sets
from support.clips import encoded, tiny_clip
from support.golden_data import case
from support.harmful import Harmful
from support.image_prompts import adapter_of, with_pictures
from support.models import conditioning, execute, sample, tiny_model
from support.noise_pairs import SMALL, learn, make_pairs
from support.references import draw, prompt

from fuzz.containers import spoilt, written
from fuzz.damage import damaged
from fuzz.verdict import faults_of, listening
from pack.nodes import samples_node
from pack.nodes.files import safe_files
from pack.nodes.golden_noise import npnet_training
from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseNode
from pack.nodes.golden_noise.npnet_node import NPNetLoader
from pack.nodes.image_adapters.image_adapter_node import ImageAdapterLoader
from pack.nodes.inversion import inversion_cache
from pack.nodes.resadapter.resadapter_node import ResAdapter, ResAdapterExport, Resolution
from pack.nodes.text_contexts.edlora_node import EDLoRAConvert, EDLoRALoader

ENDINGS = [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pt2", ".pkl", ".sft"]
FOLDERS = ("npnet", "ipadapter", "resadapter", "loras")


class Files:
    """A folder of models and outputs of its own for one damaged file after another, and the readers for them."""

    def __init__(self, base):
        self.base, self.marker = Path(base), Path(base) / "planted"
        self.model, self.clip, self.text = tiny_model(), tiny_clip(), None
        self.text = conditioning(draw(1, 77, 32, seed=1))
        self.kinds = [
            self.npnet,
            self.adapter,
            self.resadapter,
            self.edlora,
            self.training,
            self.inversion,
            self.picture,
        ]

    def faults(self, seed, number):
        """(what was done, its faults) for one file; the same for the same two numbers."""
        chance = random.Random(f"{seed}/{number}")
        for folder in (*FOLDERS, "output", "user", "pictures"):
            shutil.rmtree(self.base / folder, ignore_errors=True)
            (self.base / folder).mkdir()
        folder_paths.filename_list_cache.clear()
        inversion_cache.load(inversion_cache.LAYOUT_FILES, "none")
        kind = self.kinds[number % len(self.kinds)]
        torch.manual_seed(number)
        use = kind(chance)
        with listening() as said:
            _, faults = faults_of(use, said, self.marker)
        litter = [path.name for path in self.base.rglob("*.part")]
        return kind.__name__, faults + [f"left {litter}"] * bool(litter)

    def put(self, chance, contents, path):
        """A file of these contents, damaged in its contents or its bytes, seldom in both; its name."""
        inside, outside = chance.choice([(1, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1)])
        for _ in range(inside):
            contents = damaged(chance, contents, Harmful(self.marker))
        written(chance, contents, path)
        for _ in range(outside):
            spoilt(chance, path, self.marker)
        if chance.random() < 0.02:
            _replaced(chance, path)
        return path.name

    def named(self, chance, folder, stem="x"):
        return self.base / folder / f"{stem}{chance.choice(ENDINGS)}"

    def npnet(self, chance):
        groups = {}
        for key, t in npnets.small_weights().items():
            group, _, rest = key.partition(".")
            if rest:
                groups.setdefault(group, {})[rest] = t
            else:
                groups[group] = t
        name = self.put(chance, groups, self.named(chance, "npnet"))

        def use():
            net = execute(NPNetLoader, npnet_file=name)[0]
            noise = execute(GoldenNoiseNode, noise=Plain(), npnet=net, conditioning=self.text)[0]
            _numbers(noise.generate_noise({"samples": torch.zeros(1, 4, 8, 8)}))

        return use

    def adapter(self, chance):
        contents = dict(case("mip_adapter/weights_sd15_ip_adapter")[0])
        name = self.put(chance, contents, self.named(chance, "ipadapter"))

        def use():
            adapter = execute(ImageAdapterLoader, adapter_file=name)[0]
            sample(with_pictures(self.model, adapter=adapter), prompt(self.model, 1), steps=1)

        return use

    def resadapter(self, chance):
        lora, norms = sets.golden_set("tiny_resadapter_v2_sd1.5")
        parts = chance.choice([{"a": lora, "b": norms}, {"a": lora}, {"a": {**lora, **norms}}, {"b": norms}])
        for stem, contents in parts.items():
            folder = self.base / "resadapter" / "mine"
            folder.mkdir(exist_ok=True)
            self.put(chance, contents, self.named(chance, "resadapter/mine", stem))

        def use():
            sized = execute(Resolution, model=self.model, adapter_set="mine")
            model, _ = execute(ResAdapter, model=self.model, adapter_set="mine", alpha=sized[3])
            sample(model, prompt(self.model, 1), steps=1)
            execute(ResAdapterExport, model=self.model, adapter_set="mine")

        return use

    def edlora(self, chance):
        name = self.put(chance, edloras.tiny_contents(), self.named(chance, "loras"))

        def use():
            execute(EDLoRAConvert, edlora_file=name)
            model, clip, words = execute(EDLoRALoader, model=self.model, clip=self.clip, edlora_file=name)
            sample(model, encoded(clip, f"a {words}"), prompt(model, 1), steps=1)

        return use

    def training(self, chance):
        folder = make_pairs()
        learn(steps=1, name="net")
        path = chance.choice([*folder.iterdir(), self.base / "npnet" / "net.safetensors"])
        contents, metadata = safe_files.tensors_in(path)
        if chance.random() < 0.5:
            for _ in range(chance.choice([1, 2])):
                contents = damaged(chance, contents, Harmful(self.marker))
            written(chance, contents, path)
        else:
            spoilt(chance, path, self.marker)
        if chance.random() < 0.05:
            _replaced(chance, path)
        return lambda: learn(steps=2, name="net")

    def inversion(self, chance):
        folder = inversion_cache.folder(inversion_cache.LAYOUT_FILES)
        folder.mkdir(parents=True)
        self.put(chance, {"latents": torch.ones(3, 4, 8, 8)}, folder / "key.safetensors")

        def use():
            found = inversion_cache.load(inversion_cache.LAYOUT_FILES, "key", (3, 4, 8, 8))
            if found is not None:
                _numbers(found.float())
            inversion_cache.save(inversion_cache.LAYOUT_FILES, "other", torch.ones(3, 4, 8, 8), 1 << 20)

        return use

    def picture(self, chance):
        folder = self.base / "pictures"
        for name, mode in (("cat.jpg", "RGB"), ("cat_mask.png", "L")):
            Image.effect_noise((24, 16), 50).convert(mode).save(folder / name)
        path = folder / chance.choice(["cat.jpg", "cat_mask.png"])
        if chance.random() < 0.2:
            _replaced(chance, path)
        elif chance.random() < 0.2:
            _large(path, chance.choice([9000, 15000, 60000]))
        else:
            spoilt(chance, path, self.marker)
        return lambda: execute(samples_node.SamplePicture, picture="cat")


class Plain:
    """Random Noise of the host."""

    seed = 1

    def generate_noise(self, latent):
        return torch.ones_like(latent["samples"])


@contextlib.contextmanager
def places():
    """The host's folders and the pack's, laid into one that goes again."""
    kept = dict(folder_paths.folder_names_and_paths), folder_paths.models_dir
    outputs = folder_paths.output_directory, folder_paths.user_directory
    pictures, sizes = samples_node._FOLDER, npnet_training.PUBLISHED_SIZES
    with tempfile.TemporaryDirectory(prefix="fuzz-") as base:
        folder_paths.models_dir = base
        folder_paths.output_directory, folder_paths.user_directory = f"{base}/output", f"{base}/user"
        for kind in FOLDERS:
            entry = [f"{base}/{kind}"], set(folder_paths.supported_pt_extensions)
            folder_paths.folder_names_and_paths[kind] = entry
        samples_node._FOLDER, npnet_training.PUBLISHED_SIZES = Path(base, "pictures"), SMALL
        try:
            yield base
        finally:
            folder_paths.folder_names_and_paths.clear()
            folder_paths.folder_names_and_paths.update(kept[0])
            folder_paths.models_dir = kept[1]
            folder_paths.output_directory, folder_paths.user_directory = outputs
            samples_node._FOLDER, npnet_training.PUBLISHED_SIZES = pictures, sizes
            folder_paths.filename_list_cache.clear()


def _replaced(chance, path):
    """Something else under the name of a file."""
    path.unlink(missing_ok=True)
    what = chance.choice(["folder", "dead link", "link in a circle", "pipe", "nothing", "endless"])
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "nothing":
        path.symlink_to({"dead link": "/nowhere", "link in a circle": path, "endless": "/dev/zero"}[what])


def _large(path, side):
    """A picture of one colour: few bytes, many pixels."""
    Image.new("L", (side, side // 2)).save(path, optimize=False)


def _numbers(tensor):
    if not torch.isfinite(tensor).all():
        raise AssertionError("values that are no numbers were handed on without a word")


__all__ = ["Files", "adapter_of", "places"]
