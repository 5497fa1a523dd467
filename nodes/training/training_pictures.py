"""What the user says of pictures to learn from, checked before anything is trained."""

from ..host.latents import batched_mask, bounded_mask, checked_images
from ..host.messages import input_error
from .captions import caption_lines
from .pictures_wire import Subject, TrainingPictures, TrainingScene

# The side of the smallest picture that shows enough to learn from.
SMALLEST_SIDE = 64


def with_subject(image, word, class_word, captions, templates, mask=None, before=None):
    """The TrainingPictures `before`, with one more subject.

    captions: a text with a caption a line. Raises ValueError for pictures under 64 pixels, for masks or captions that
    do not match their number, for empty masks and words, and behind a scene.
    """
    if isinstance(before, TrainingScene):
        raise input_error(
            "pictures is a scene, which is learned alone; connect Training Pictures here, or Scene Pictures to Train "
            "Concept directly"
        )
    word = _needed(word, "word")
    images = _pictures(image)
    lines = caption_lines(captions)
    if len(lines) not in (0, 1, len(images)):
        raise input_error(
            f"captions has {len(lines)} lines for {len(images)} pictures; write one line for each picture, one for "
            "all, or none"
        )
    masks = None if mask is None else _masks(mask, len(images), "picture")
    subject = Subject(images, word, class_word.strip(), lines, templates, masks)
    return TrainingPictures((*(before.subjects if before else ()), subject))


def scene_of(image, masks, words, class_words):
    """The TrainingScene of one picture with a mask, a word and a class word for each of its things.

    words, class_words: texts with a comma between two. Raises ValueError for several pictures, for numbers that do not
    match, for words that come twice, and for empty masks.
    """
    images = _pictures(image)
    if len(images) > 1:
        raise input_error(
            f"image is a batch of {len(images)} pictures, a scene is one; pick one, or use Training Pictures"
        )
    names = tuple(_needed(word, "words") for word in words.split(","))
    if len(set(names)) < len(names):
        raise input_error(f'words is "{words}": a word stands twice in it; give each thing a word of its own')
    found = _masks(masks, None, "thing")
    if len(found) != len(names):
        raise input_error(
            f"masks has {len(found)} masks and words {len(names)} words; connect one mask for each word, as a batch"
        )
    kinds = tuple(kind.strip() for kind in class_words.split(",")) if class_words.strip() else ("",) * len(names)
    if len(kinds) != len(names):
        raise input_error(
            f"class_words has {len(kinds)} words for {len(names)} things; write one for each, or leave it empty"
        )
    return TrainingScene(images, found, names, kinds)


def _needed(word, socket):
    if not word.strip():
        raise input_error(f'{socket} is empty or has an empty place; enter a word such as "<my_cat>" for each subject')
    return word.strip()


def _pictures(image):
    images = checked_images(image, "image").cpu()
    height, width = images.shape[1:3]
    if min(height, width) < SMALLEST_SIDE:
        raise input_error(
            f"image is {width}x{height} pixels; connect pictures of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}"
        )
    return images


def _masks(mask, count, kind):
    """(n, H, W) in 0..1, n 1 or `count`, if that is given."""
    masks = batched_mask(mask)
    if masks.ndim != 3:
        raise input_error(f"mask has the shape {tuple(masks.shape)}; connect a MASK (batch, height, width)")
    masks = bounded_mask(masks, f"the {kind}s", "mask").cpu()
    if count is not None and len(masks) not in (1, count):
        raise input_error(f"image has {count} pictures but {len(masks)} masks came; connect one mask, or one each")
    empty = [number for number, one in enumerate(masks, 1) if not (one >= 0.5).any()]
    if empty:
        raise input_error(
            f"the mask of {kind} {', '.join(map(str, empty))} is empty; paint the subject white, or disconnect the "
            "mask (Load Image gives a black one for a picture without transparency)"
        )
    return masks
