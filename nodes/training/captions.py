"""The prompts that pictures are learned with: their captions, or templates, with the words in them."""

from dataclasses import dataclass

from ..host.messages import warn_user
from ..text_contexts.whole_words import standing_alone
from .caption_templates import TEMPLATES

# Where the words stand in a caption.
PLACE = "{}"


@dataclass(frozen=True)
class Captions:
    """Per picture the captions that it may have, words and all."""

    of_picture: tuple[tuple[str, ...], ...]

    @property
    def all(self):
        """Every caption, once; those that are shuffled stand here in their own order."""
        return tuple(dict.fromkeys(caption for several in self.of_picture for caption in several))

    def drawn(self, picture, share, shuffled=False):
        """A caption of a picture by its number. share(): the next of some numbers in 0..1.

        shuffled: whether what stands behind the first comma may stand in another order (Mix-of-Show).
        """
        several = self.of_picture[picture]
        caption = several[min(len(several) - 1, int(share() * len(several)))]
        return _shuffled(caption, share) if shuffled else caption


def captions_of(subject, words):
    """The Captions of a Subject, where `words` stand for it ("<my_cat>", "<my_cat_1> <my_cat_2>", "sks cat").

    Says of captions that name the subject nowhere: the words then stand in front.
    """
    count = len(subject.images)
    if not subject.captions:
        made = tuple(template.replace(PLACE, words) for template in TEMPLATES[subject.templates])
        return Captions((made,) * count)
    written = [_with_words(caption, words, subject.word) for caption in subject.captions]
    missing = sum(added for _, added in written)
    if missing:
        warn_user(
            f'{missing} of {len(written)} captions have neither {PLACE} nor "{subject.word}", so "{words}" was put in '
            f"front of them; write {PLACE} where the subject is named"
        )
    own = [caption for caption, _ in written]
    return Captions(tuple((caption,) for caption in (own * count if len(own) == 1 else own)))


def caption_lines(text):
    """The captions that a text holds, one a line, without empty ones."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _with_words(caption, words, word):
    """(the caption with the words in it, whether they had to be added)"""
    if PLACE in caption:
        return caption.replace(PLACE, words), False
    if word:
        # "sks cat" may stand there as it is
        own, alone = standing_alone(words), standing_alone(word)
        made = words.join(alone.sub(lambda _: words, part) for part in own.split(caption))
        if own.search(made):
            return made, False
    return f"{words} {caption}", True


def _shuffled(caption, share):
    first, *others = (part.strip() for part in caption.split(","))
    for last in range(len(others) - 1, 0, -1):
        other = min(last, int(share() * (last + 1)))
        others[last], others[other] = others[other], others[last]
    return ", ".join([first, *others])
