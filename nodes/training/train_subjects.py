"""The words of a training: their names, what they start at, and the LoRA beside them."""

from ..host.blocks import attention_blocks
from ..host.messages import input_error
from .learned import Learned, leaf
from .lora_layers import TARGETS, fresh_lora, text_layers, unet_layers
from .pictures_wire import TrainingScene
from .word_starts import check_known, check_read, check_word, started_rows


def words_of_pictures(pictures, clip, settings, method):
    """(the names of each subject's words, their class words), a scene counting as one subject of several words.

    Subjects of one word are one, with pictures of several sizes. Raises ValueError for pictures that a method has no
    use for, and for words that clash, also with the CLIP's own.
    """
    is_scene = isinstance(pictures, TrainingScene)
    if is_scene != (method == "scene"):
        wanted = "Scene Pictures" if method == "scene" else "Training Pictures"
        raise input_error(f'method "{method}" learns from {wanted}; connect that node, or choose another method')
    if is_scene:
        # of a thing whose kind nobody says, None
        names, classes = (tuple(pictures.words),), (tuple(kind.strip() or None for kind in pictures.class_words),)
    else:
        kinds = _one_kind_each(pictures.subjects)
        if method == "parts" and len(kinds) < 2:
            raise input_error(
                "the method parts needs two or more subjects, but only one came; chain Training Pictures, or choose "
                "word"
            )
        names = tuple(_names(subject.word, settings) for subject in pictures.subjects)
        classes = tuple((subject.class_word,) * len(own) for subject, own in zip(pictures.subjects, names, strict=True))
    seen = []
    for name in (name for own in dict.fromkeys(names) for name in own):
        if settings.words:
            check_word(name, seen)
        elif not name.strip():
            raise input_error("word is empty; enter a rare one such as sks, which the LoRA then listens to")
        seen.append(name)
    if settings.words:
        check_known(clip, seen)
        check_read(clip, seen)
    return names, classes


def _one_kind_each(subjects):
    """{word: its class word} of subjects."""
    kinds = {}
    for one in subjects:
        other = kinds.setdefault(one.word.strip(), one.class_word)
        if other != one.class_word:
            raise input_error(
                f'the word "{one.word}" came twice, with the class words "{other}" and "{one.class_word}"; enter the '
                "same one for pictures of one subject, or another word for another subject"
            )
    return kinds


def _names(word, settings):
    """Of two words, the second begins at the class word: <my_cat> becomes <my_cat_1> and <my_cat_2>."""
    word = word.strip()
    if settings.words < 2:
        return (word,)
    stem, end = (word[:-1], ">") if word.endswith(">") else (word, "")
    return tuple(f"{stem}_{number}{end}" for number in range(1, settings.words + 1))


def fresh_learned(model, unet, clip, names, classes, settings, seed):
    """(the Learned of a new training, the layers of its LoRA), of loaded networks; ValueError as its parts have it."""
    layers = _layers_of_words(unet, settings)
    words = {}
    for own, kinds in dict(zip(names, classes, strict=True)).items() if settings.words else ():
        for number, (name, kind) in enumerate(zip(own, kinds, strict=True)):
            # of an ED-LoRA's two words, the first is free
            free = kind is None or (settings.words > 1 and number == 0)
            start = "random" if free else settings.start
            vectors = 1 if settings.words > 1 else settings.vectors
            rows = started_rows(clip, name, kind, start, vectors, seed, model.load_device)
            count = max(layers) + 1 if layers else 1
            words[name] = {
                encoder: leaf(one.repeat(count, 1), model.load_device) if layers else one
                for encoder, one in rows.items()
            }
    learns = {}
    if settings.lr_unet:
        learns |= unet_layers(model.model, unet, TARGETS[settings.targets])
    if settings.lr_text:
        learns |= text_layers(clip)
    lora = fresh_lora(learns, settings.rank, seed, settings.lora_start, model.load_device)
    return Learned(words, layers, lora, pools=settings.words > 1), learns


def _layers_of_words(unet, settings):
    """To which row of a word each cross-attention belongs: one each, or those of a transformer together."""
    if settings.layers == "one":
        return ()
    blocks = list(attention_blocks(unet))
    groups = blocks if settings.layers == "each" else list(dict.fromkeys(block[:2] for block in blocks))
    return tuple(groups.index(block if settings.layers == "each" else block[:2]) for block in blocks)
