"""What a user asks of a training, and what is refused before anything is loaded."""

import json
from dataclasses import asdict, dataclass, field, replace

import torch

from ..files.file_name import file_name_of
from ..host.blocks import unet_of
from ..host.calls import channels_of, live_unet
from ..host.clip_text import check_clip
from ..host.content_keys import digest, sampling_digest, values_digest
from ..host.families import family_of
from ..host.messages import input_error, warn_user
from ..text_contexts.concept_words import words_of
from .methods import settings_of
from .pictures_wire import TrainingScene
from .static_weights import in_one_place


@dataclass(frozen=True)
class TrainingRequest:
    """The widgets of Train Concept, and the options that came with them, {name: value}."""

    method: str = "word"
    file_name: str = "my_cat"
    steps: int = 0
    size: int = 0
    seed: int = 0
    save_every: int = 100
    preview_every: int = 100
    preview_prompt: str = "a photo of {}"
    prior_weight: float = 1.0
    options: dict = field(default_factory=dict)

    @property
    def stem(self):
        """The name of its files without an ending; ValueError for one that is more than a name."""
        return file_name_of(self.file_name, "my_cat").removesuffix(".safetensors")

    def settings(self, class_pictures, family):
        """The TrainingSettings asked for; says of pictures of the class that the method has no use for.

        Raises ValueError for values there are none of, and where pictures of the class are needed and none came.
        """
        made = settings_of(self.method, self.options, self.steps, family)
        wanted = made.prior_weight > 0
        if wanted and self.prior_weight > 0 and class_pictures is None:
            raise input_error(
                f"prior_weight is {self.prior_weight} but class_pictures is empty; connect Class Pictures, or set "
                "prior_weight to 0"
            )
        if not wanted and self.prior_weight > 0 and class_pictures is not None:
            warn_user(f'the method "{self.method}" learns without class pictures, so they are left out')
        return replace(made, prior_weight=self.prior_weight if wanted and class_pictures is not None else 0.0)


def plain_model(model, clip, method):
    """The MODEL and CLIP whose weights lie where a training can read them. ValueError for what cannot be trained."""
    unet_of(model, "Train Concept")
    check_clip(clip)
    family = family_of(model)
    if family not in ("SD1.5", "SD2.x", "SDXL") or (method == "ED-LoRA" and family == "SD2.x"):
        wanted = "SD1.5 and SDXL" if method == "ED-LoRA" else "SD1.5, SD2.x and SDXL"
        raise input_error(f"{method} trains {wanted}; this model is {family}: connect a checkpoint of these families")
    if channels_of(model.model) != 4:
        raise input_error(
            f"this model takes {channels_of(model.model)} channels, as those for inpainting do; connect the ordinary "
            "checkpoint of its family"
        )
    return in_one_place(model, "model"), in_one_place(clip, "clip")


def identity_of(request, settings, names, side, pictures, class_pictures, networks):
    """{what it is: its digest} of all that decides a training; networks: its MODEL, CLIP and VAE, loaded. Steps of a
    constant pace do not decide it.

    Raises ValueError for weights that cannot be read.
    """
    decides = asdict(settings) | {"seed": request.seed, "side": side, "words": names, "method": request.method}
    if settings.norm_limit is None:
        # as states on disk have it
        decides["norm_limit"] = -1.0
    if settings.schedule == "constant":
        decides.pop("steps")
    if "words_first" not in request.options:
        # a share of the steps
        decides.pop("words_first")
    # how it is computed and where it is kept changes nothing
    for name in ("checkpoint", "cache_mb"):
        decides.pop(name)
    class_tensors = () if class_pictures is None else (class_pictures.latents,)
    shown, said = _pictures(pictures)
    said += () if class_pictures is None else (class_pictures.prompt,)
    model, clip, vae = networks
    # VAEs of other packs may be of another make
    modules = live_unet(model.model), clip.cond_stage_model, getattr(vae, "first_stage_model", None)
    weights = [tensor for module in modules if module for tensor in module.state_dict().values() if tensor.numel()]
    used = sampling_digest(model.get_model_object("model_sampling")), digest(text_bytes(str(clip.layer_idx)))
    # a CLIP's words lie in its tokenizer, and stand in captions
    used = *used, _words_beside(clip, [name for own in names for name in own] if settings.words else ())
    try:
        of_model = (digest(*weights) + b"".join(used)).hex()
    except NotImplementedError:
        raise input_error(
            "this checkpoint keeps its weights in a form that cannot be read, and training needs them; load the "
            "checkpoint in another precision"
        ) from None
    return {
        "settings": json.dumps(decides, sort_keys=True),
        "pictures": digest(*shown, *class_tensors, text_bytes(json.dumps(said))).hex(),
        "model": of_model,
    }


def text_bytes(text):
    """A text as a tensor, for a digest."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _words_beside(clip, trained):
    """A digest of the words that a CLIP knows beside those that are trained; b"" without any."""
    others = [word for word in words_of(clip) if word.name not in trained]
    contents = [
        (word.name, word.rows, word.pools, word.keys_as, None if word.maker is None else word.maker.contents)
        for word in others
    ]
    return values_digest(contents) if contents else b""


def _pictures(pictures):
    """(tensors, texts) of what is learned from."""
    if isinstance(pictures, TrainingScene):
        return (pictures.image, pictures.masks), (*pictures.words, *pictures.class_words)
    tensors = tuple(t for one in pictures.subjects for t in (one.images, one.masks))
    return tensors, tuple((one.word, one.class_word, one.captions, one.templates) for one in pictures.subjects)
