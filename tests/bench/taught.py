"""What effect_training learns on the pocket model: by the pack's nodes, and by the host's own trainer."""

import math
import uuid

import effects

THING, OTHER, RARE = "heart", "star", "sks"
HUES = {THING: math.radians(240), OTHER: math.radians(120)}
RATE, BATCH = 2e-3, 4
# what each method is asked to do on a model this small; words move more slowly than weights
OPTIONS = {
    "LoRA": {"lr_unet": RATE, "mask_loss": "region"},
    "ED-LoRA": {"lr_unet": RATE, "lr_words": 1e-2, "mask_loss": "region"},
    "word": {"lr_words": BATCH * 1e-2, "mask_loss": "region"},
    "scene": {"lr_unet": RATE},
}


def files_in(folder):
    """New files go into this folder, and no other files are found."""
    import folder_paths

    for kind in ("loras", "embeddings"):
        (folder / kind).mkdir()
        folder_paths.folder_names_and_paths[kind] = ([str(folder / kind)], folder_paths.supported_pt_extensions)
    folder_paths.set_output_directory(str(folder / "output"))


class Trainings:
    """The pocket model and what is learned on it."""

    def __init__(self, options):
        from support.models import execute
        from tints import tinted_world

        from pack.nodes.training.train_node import TrainConcept
        from pack.nodes.training.train_options_node import TrainingOptionsNode
        from pack.nodes.training.training_pictures_node import ScenePictures, TrainingPicturesNode

        self.nodes = TrainConcept, TrainingOptionsNode, TrainingPicturesNode, ScenePictures
        self.execute, self.options = execute, options
        self.model, self.clip, self.vae = effects.pocket(options)
        self.world = tinted_world(options.cache)

    def shown(self, count):
        """(pictures, masks) of so many pictures of the thing in its look."""
        import torch

        found = [effects.shown(THING, HUES[THING], self.world, seed) for seed in range(count)]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def of_pictures(self, method, pictures, masks, thing=THING, name=""):
        """(MODEL, CLIP, words) after a training on pictures of a thing."""
        _, _, TrainingPictures, _ = self.nodes
        word = RARE if method == "LoRA" else "<it>"
        said = {"word": word, "class_word": thing, "captions": "a {}", "templates": "object", "mask": masks}
        (subject,) = self.execute(TrainingPictures, image=pictures, **said)
        return self._trained(method, subject, f"{method}_{len(pictures)}{name}".replace(" ", "_"))

    def of_scene(self, picture, masks):
        """(MODEL, CLIP, words) after a training on one picture of both things."""
        *_, ScenePictures = self.nodes
        said = {"words": "<a>, <b>", "class_words": f"{THING}, {OTHER}"}
        (scene,) = self.execute(ScenePictures, image=picture, masks=masks, **said)
        return self._trained("scene", scene, "scene")

    def _trained(self, method, pictures, name):
        TrainConcept, TrainingOptions, *_ = self.nodes
        (chosen,) = self.execute(TrainingOptions, batch_size=BATCH, **OPTIONS[method])
        said = {"steps": self.options.train_steps, "save_every": 0, "preview_every": 0}
        inputs = {"model": self.model, "clip": self.clip, "vae": self.vae, "pictures": pictures, "options": chosen}
        said |= {"method": method, "file_name": name, "preview_prompt": "a {}", "prior_weight": 0.0}
        model, clip, words, _, report = self.execute(TrainConcept, **inputs, **said)
        print(report)
        return model, clip, words

    def by_the_host(self, pictures):
        """(MODEL, CLIP, words) after the host's Train LoRA on the same pictures."""
        import comfy.sd
        import torch
        from comfy_extras.nodes_train import TrainLoraNode
        from samples import encode

        words = f"{RARE} {THING}"
        said = {"batch_size": BATCH, "grad_accumulation_steps": 1, "steps": self.options.train_steps, "seed": 0}
        said |= {"learning_rate": RATE, "rank": 4, "optimizer": "AdamW", "loss_function": "MSE"}
        said |= {"training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA"}
        said |= {"gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False, "bucket_mode": False}
        said |= {"existing_lora": "[None]", "bypass_mode": False, "model": self.model}
        lists = {name: [value] for name, value in said.items()}
        with torch.inference_mode():
            # it takes each picture once per step, so few are shown several times
            latents = self.vae.encode(pictures.repeat(math.ceil(BATCH / len(pictures)), 1, 1, 1))
            given = {"latents": [{"samples": latents}], "positive": [encode(self.clip, f"a {words}")]}
            lora = TrainLoraNode.execute(**lists, **given).result[0]
        return comfy.sd.load_lora_for_models(self.model, None, lora, 1.0, 0.0)[0], self.clip, words


def patched_as(model, other):
    """The MODEL with the weight patches that another one of the same checkpoint has beside it."""
    found = model.clone()
    for key, patches in other.patches.items():
        found.patches[key] = [*found.patches.get(key, []), *patches]
    # by which the host tells what its weights are patched with
    found.patches_uuid = uuid.uuid4()
    return found


def scene(world):
    """(picture (1, h, w, 3) with both things side by side on grey, masks (2, h, w))."""
    import torch

    shown = [effects.shown(thing, hue, world, 1) for thing, hue in HUES.items()]
    half = [torch.nn.functional.interpolate(p.movedim(-1, 1), scale_factor=0.5, mode="area") for p, _ in shown]
    spots = [torch.nn.functional.interpolate(m[:, None], scale_factor=0.5, mode="area")[:, 0] for _, m in shown]
    side = half[0].shape[-1]
    picture = half[0][:, :, :1, :1].expand(1, 3, 2 * side, 2 * side).clone()
    masks = torch.zeros(2, 2 * side, 2 * side)
    for k, (one, spot) in enumerate(zip(half, spots, strict=True)):
        where = slice(side // 2, side // 2 + side), slice(k * side, (k + 1) * side)
        picture[0, :, where[0], where[1]] = one[0]
        masks[k, where[0], where[1]] = spot[0]
    return picture.movedim(1, -1), masks
