"""A whole training: from pictures to files, with progress, previews, and an end at any step that loses nothing."""

from dataclasses import dataclass

import comfy.model_management as mm
import torch

from ..files.new_files import write_tensors
from ..files.training_state import started_anew
from ..host.families import family_of, native_side
from ..host.messages import input_error, plain
from .batch_source import BatchSource
from .picture_source import check_side, encoder_of, of_whole_pictures, sources_of, within_cache
from .pictures_wire import TrainingScene
from .train_loop import TrainLoop
from .train_previews import preview_of
from .train_request import identity_of, plain_model
from .train_setup import class_latents, prepared, references_of
from .train_state import TrainedState
from .train_subjects import words_of_pictures
from .trained_files import files_of, metadata_of, with_trained


@dataclass(frozen=True, eq=False)
class TrainedConcept:
    """What a training gives: the MODEL and CLIP with it, its words, its previews (b, S, S, 3), a sentence."""

    model: object
    clip: object
    words: str
    previews: torch.Tensor
    report: str


def train_concept(model, clip, vae, pictures, request, class_pictures=None):
    """The TrainedConcept of a TrainingRequest; its files are written, and the MODEL, CLIP and VAE are as they came.

    An interrupted training of the same name, pictures and settings goes on where its state was written. Raises
    ValueError for inputs that cannot be trained with, files that are somebody's, and a disk that takes none.
    """
    settings = request.settings(class_pictures, family_of(model))
    class_pictures = class_pictures if settings.prior_weight else None
    stem = request.stem
    bare, text = plain_model(model, clip, request.method)
    names, classes = words_of_pictures(pictures, text, settings, request.method)
    side = check_side(request.size, native_side(model))
    settings = within_cache(settings, count_of(pictures), side)
    sources = sources_of(pictures, names, encoder_of(bare, vae), side, settings, request.seed)
    settings = of_whole_pictures(sources, settings)
    steps = settings.length(len(sources))
    of_class = class_latents(bare, class_pictures, side)
    trainer, load = prepared(bare, text, names, classes, settings, len(sources), side, request.seed)
    identity = identity_of(request, settings, names, side, pictures, class_pictures, (bare, text, vae))
    state = TrainedState(stem, trainer, identity)
    done = state.read()
    files = files_of(trainer.learned, settings.kind, stem)
    state.check_files(files)
    scene = isinstance(pictures, TrainingScene)
    references = references_of(text, settings, names, classes)
    batches = BatchSource(sources, settings, request.seed, of_class, scene, references)
    said = _said(names, settings, pictures)

    def preview():
        prompt = request.preview_prompt.replace("{}", said)
        return preview_of(bare, text, vae, trainer.learned, prompt, side, request.seed)

    loop = TrainLoop(trainer, load, batches, state, vae_encode=encoder_of(bare, vae), preview=preview)
    done = loop.run(done, steps, request.save_every, request.preview_every)
    files = files_of(trainer.learned, settings.kind, stem)
    _write(files, trainer.learned, settings, family_of(model), request, state, done)
    model, clip = with_trained(model, clip, trainer.learned, settings.kind, files)
    more = f" (done before; {steps} were asked for)" if done > steps else ""
    report = f"{_names(files)}{started_anew(state.file)}, {done} steps{more}, {len(sources)} pictures{loop.losses()}"
    return TrainedConcept(model, clip, said, torch.cat(loop.previews), plain(f"{report}{state.file.where()}"))


def _write(files, learned, settings, family, request, state, done):
    said = {"method": request.method, "steps": done, "learning rates": [settings.lr_words, settings.lr_unet]}
    said |= {"rank": settings.rank, "schedule": settings.schedule, "seed": request.seed}
    metadata = metadata_of(learned, said, family, state.mark)
    for path, tensors in files.items():
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise input_error(f"what was learned became NaN or infinite in {path.name}; lower the learning rate")
        write_tensors(path, tensors, state.replaces(path), **metadata)
    mm.soft_empty_cache()


def count_of(pictures):
    """How many pictures there are to learn from."""
    return 1 if isinstance(pictures, TrainingScene) else sum(len(one.images) for one in pictures.subjects)


def _said(names, settings, pictures):
    """What stands for the subjects in a prompt."""
    if not settings.words:
        return " and ".join(dict.fromkeys(f"{one.word} {one.class_word}".strip() for one in pictures.subjects))
    if isinstance(pictures, TrainingScene):
        return " and ".join(names[0])
    return " with ".join(" ".join(own) for own in dict.fromkeys(names))


def _names(files):
    return " and ".join(path.name for path in files)
