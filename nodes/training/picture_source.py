"""Training pictures as latents in their places, encoded once before the first step."""

from dataclasses import dataclass, replace

import comfy.model_management as mm
import torch

from ..host.content_keys import digest
from ..host.latents import LATENT_STEP, checked_latent
from ..host.messages import input_error, warn_user
from .captions import Captions, captions_of
from .pictures_wire import TrainingScene
from .placements import masks_at_latents, placements_of, whole_masks
from .quarter_masks import seen_at_quarter
from .training_pictures import SMALLEST_SIDE


@dataclass(frozen=True, eq=False)
class PlacedLatent:
    """One place of one picture: latent (4, h, w) in the model's units, pixels (1, S, S, 3) that it was made of.

    masks (n, h, w): its subject's or its things' at latent pixels, n = 0 without; whole (n, S, S): at its pixels; shown
    (1, h, w): where the picture lies on its canvas; sizes: SDXL's.
    """

    latent: torch.Tensor
    pixels: torch.Tensor
    masks: torch.Tensor
    whole: torch.Tensor
    shown: torch.Tensor
    sizes: tuple


@dataclass(frozen=True, eq=False)
class SourcePicture:
    """One picture: its places, the words that stand for what it shows, the number of its subject."""

    places: tuple
    words: tuple
    concept: int
    # of its subject, and its number among that one's pictures
    captions: Captions = None
    number: int = 0


def sources_of(pictures, words, encode, side, settings, seed):
    """The SourcePictures of a TrainingPictures or TrainingScene.

    words: of each subject, or of the scene, a tuple of names; encode: pixels (1, S, S, 3) -> latent (4, h, w); side: of
    the canvas in pixels. Raises ValueError for pictures that cannot be learned from.
    """
    if isinstance(pictures, TrainingScene):
        masks = whole_masks(pictures.masks, pictures.image.shape[1:3])
        places = _places(pictures.image[0], masks, "the scene", encode, side, settings, f"{seed}/scene", nearest=True)
        return (SourcePicture(places, words[0], 0),)
    found = []
    for concept, (subject, own) in enumerate(zip(pictures.subjects, words, strict=True)):
        captions = captions_of(
            subject, " ".join(own) if settings.words else f"{subject.word} {subject.class_word}".strip()
        )
        nearest = settings.maps == "quarter"
        for number, image in enumerate(subject.images):
            label = f"picture {number + 1} of {subject.word}"
            masks = image.new_zeros(0, *image.shape[:2])
            if subject.masks is not None:
                mask = subject.masks[number % len(subject.masks)]
                masks = whole_masks(mask[None], image.shape[:2])
            name = f"{seed}/{concept}/{number}"
            places = _places(image, masks, label, encode, side, settings, name, nearest)
            # pictures of one subject may have come in several sizes
            found.append(SourcePicture(places, own, list(dict.fromkeys(words)).index(own), captions, number))
    if not found:
        raise input_error("pictures holds no picture; connect Training Pictures")
    return tuple(found)


def _places(image, masks, label, encode, side, settings, name, nearest):
    made, latents, gone = [], {}, False
    drawn = placements_of(
        image, masks, settings.placement, side, count=settings.placements, seed=name, flip=settings.flip
    )
    for placed in drawn:
        mm.throw_exception_if_processing_interrupted()
        pixels = placed.pixels.movedim(0, -1)[None]
        # a square picture has no other crops than itself and its mirror image
        same = digest(pixels)
        if same not in latents:
            latents[same] = encode(pixels)
        at_latents = masks_at_latents(placed.masks, label, nearest) if len(masks) else placed.masks[:, ::8, ::8]
        shown = masks_at_latents(placed.shown[None], label)
        sizes = (*placed.original, *placed.corner, side, side)
        # what only some losses read is not kept for others
        whole = placed.masks if settings.maps == "quarter" or settings.degrade else placed.masks[:0]
        if settings.maps == "quarter" and settings.attention_weight:
            whole, lost = seen_at_quarter(whole)
            gone |= lost
        kept = pixels if settings.degrade else pixels[:0]
        made.append(PlacedLatent(latents[same], kept, at_latents, whole, shown, sizes))
    if gone:
        warn_user(
            f"{label}: a mask falls between the points, 32 pixels apart, where words are compared with masks, so its "
            "word keeps to one of them; crop the picture closer, or enter a larger size"
        )
    return tuple(made)


def within_cache(settings, pictures, side):
    """The settings with no more places per picture than the main memory that they may take holds; says of fewer."""
    kept = 4 * side**2 * (3 + 2 * bool(settings.maps) if settings.degrade or settings.maps == "quarter" else 0.25)
    most = max(1, int(settings.cache_mb * 2**20 / (kept * pictures)))
    if most >= settings.placements:
        return settings
    warn_user(
        f"cache_mb {settings.cache_mb} holds {most} places of each of {pictures} pictures instead of "
        f"{settings.placements}; raise it for more"
    )
    return replace(settings, placements=most)


def encoder_of(model, vae):
    """pixels (1, S, S, 3) in 0..1 -> latent (4, h, w) in the units of a MODEL; ValueError from it for another VAE.

    Raises ValueError where no VAE came.
    """
    if vae is None:
        raise input_error("vae is empty; connect the checkpoint's VAE")

    def encoded(pixels):
        latent = checked_latent(model.model, vae.encode(pixels), "a training picture")
        with torch.inference_mode(False):
            return model.model.process_latent_in(latent.detach().clone())[0].float()

    return encoded


def check_side(side, native):
    """The side of the canvas for a size that was entered, 0 for the model's own; ValueError for one of no latent."""
    side = side or native
    if side % LATENT_STEP or side < SMALLEST_SIDE:
        raise input_error(f"size is {side}; enter a multiple of {LATENT_STEP} of at least {SMALLEST_SIDE}, or 0")
    return side


def of_whole_pictures(sources, settings):
    """The settings with a loss that leaves out what lies beside pictures which a crop had to fit as a whole, for their
    masks to be seen. Says so, and where masks were given to a training whose loss reads none, or lack in one that holds
    words to them.
    """
    bare = sum(not len(one.places[0].masks) for one in sources)
    if settings.maps == "quarter" and settings.attention_weight and bare:
        warn_user(
            f"{bare} of {len(sources)} pictures have no mask, so their words may be read anywhere in them; connect "
            "masks to Training Pictures"
        )
    if settings.mask_loss != "none":
        return settings
    if not settings.maps and any(len(one.places[0].masks) for one in sources):
        warn_user("the masks only keep the subject in the frame: this method's loss looks at the whole picture")
    if settings.placement != "crop" or all(bool(place.shown.all()) for one in sources for place in one.places):
        return settings
    warn_user(
        "no square part of a picture shows all of its masks, so it is fitted as a whole and learned without the black "
        "beside it; crop the picture closer to its subject for more detail"
    )
    return replace(settings, mask_loss="picture")
