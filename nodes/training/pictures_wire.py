"""What a training learns from: pictures of subjects, a scene of several, pictures of their class. The wires."""

from dataclasses import dataclass

import torch
from comfy_api.latest import io

TrainingPicturesSocket = io.Custom("PERSONALIZATION_TRAINING_PICTURES")
ClassPicturesSocket = io.Custom("PERSONALIZATION_CLASS_PICTURES")


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject: its pictures (b, H, W, 3) in 0..1 and the word that they teach.

    captions: none (then templates are used), one, or one per picture; templates: "object", "person" or "style"; masks:
    white on the subject, (b, Hm, Wm) in 0..1 whatever their size, or None for the whole pictures.
    """

    images: torch.Tensor
    word: str
    class_word: str = ""
    captions: tuple[str, ...] = ()
    templates: str = "object"
    masks: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class TrainingPictures:
    """One subject or several, each with pictures of its own. Travels on the wire of training pictures."""

    subjects: tuple[Subject, ...]


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """One picture (1, H, W, 3) of several things. Travels on the wire of training pictures.

    Each thing has a mask, (n, Hm, Wm) in 0..1, which may overlap, a word of its own and a class word, "" if unknown.
    """

    image: torch.Tensor
    masks: torch.Tensor
    words: tuple[str, ...]
    class_words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ClassPictures:
    """Pictures of a class as the model itself draws it: the latents (n, 4, h, w) of a LATENT, all of one prompt.

    folder: where they lie, below the output folder; family: the models that drew them, as families.family_of.
    """

    folder: str
    latents: torch.Tensor
    prompt: str
    family: str = ""
