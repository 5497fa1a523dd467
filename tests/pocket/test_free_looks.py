"""The weights that are kept leave looks open: the judge knows things in any hue, and words do not say which."""

import judge
import pytest
import torch
from looks import standing, turned
from pictures import read
from questions import singles
from samples import draw
from sight import backdrop, hues_of, resultant, sightings
from things import COLOURS

from pack.nodes.pocket.pocket_model import load_pocket


def in_another_hue(picture, angle):
    """A picture (3, h, w) with the hues of all that stands there turned."""
    pixels = picture.movedim(0, -1)
    there = standing(pixels, backdrop(pixels), torch.ones(pixels.shape[:2]))
    opaque = torch.cat([picture, torch.ones_like(picture[:1])])[None]
    return torch.where(there, turned(opaque, torch.tensor([angle]))[0, :3], picture)


@pytest.mark.parametrize("angle", [0.0, 1.3, 2.6, 3.9, 5.2])
def test_the_judge_knows_the_sample_pictures_in_any_hue(angle):
    pictures, shown = read()
    made = torch.stack([in_another_hue(picture, angle) for picture in pictures])
    verdict = judge.load().look(made)
    found = [set(sightings(picture.movedim(0, -1), verdict, i)) for i, picture in enumerate(made)]
    assert sum(words == set(one["things"]) for words, one in zip(found, shown, strict=True)) >= 0.9 * len(shown)
    assert [list(COLOURS)[i] for i in verdict.background] == [one["colour"] for one in shown]


@pytest.mark.slow
def test_words_say_what_the_model_draws_but_not_its_hue():
    parts, sees = load_pocket(), judge.load()
    found, hues = 0, []
    for question in singles(8, seed=3):
        picture = draw(parts, question.prompt(), [question.seed], steps=10, cfg=3.0)
        there = sightings(picture[0], sees.look(picture.movedim(-1, 1)))
        found += question.things[0] in there
        hues += hues_of(question.things, picture[0], there)
    assert found >= 6 and resultant(hues) < 0.8
