"""The weights that are kept: the judge knows the sample pictures, and the autoencoder gives them back."""

from pathlib import Path

import autoencoder
import judge
import pytest
from pictures import of_held_out, read
from questions import answers, pairs, singles
from samples import draw
from things import COLOURS, WORDS

from pack.nodes.pocket.pocket_files import FOLDER
from pack.nodes.pocket.pocket_model import load_pocket

# megabytes of all weights of the pocket model together
ROOM = 25
# of pictures that went through the autoencoder: decibels, and the share of things that the judge still finds
LEAST_PSNR, LEAST_FOUND = 26, 0.95


@pytest.fixture(scope="module")
def pictures():
    return read()


def named(verdict):
    """The words of the things that the judge sees, for each picture."""
    return [{WORDS[t] for t in row.nonzero()[:, 0].tolist()} for row in verdict.seen()]


def test_the_sample_pictures_show_held_out_things_too(pictures):
    shown = pictures[1]
    assert len(shown) == len(pictures[0]) and 5 <= len(of_held_out(shown)) < len(shown)


def test_the_judge_knows_the_sample_pictures(pictures):
    verdict = judge.load().look(pictures[0])
    right = sum(seen == set(one["things"]) for seen, one in zip(named(verdict), pictures[1], strict=True))
    assert right >= len(pictures[1]) - 1
    assert [list(COLOURS)[i] for i in verdict.background] == [one["colour"] for one in pictures[1]]


def test_the_judge_sees_nothing_where_nothing_is(pictures):
    things = {word for one in pictures[1] for word in one["things"]}
    flat = pictures[0][:, :, :1, :1].expand_as(pictures[0])
    assert not any(named(judge.load().look(flat))) and things


def test_the_autoencoder_gives_the_sample_pictures_back(pictures):
    model = autoencoder.load(FOLDER / "autoencoder.safetensors")
    latents, _ = autoencoder.moments(model, pictures[0])
    back = autoencoder.decode(model, latents).clamp(0, 1)
    psnr = -10 * (back - pictures[0]).square().mean((1, 2, 3)).log10()
    assert psnr.mean() > LEAST_PSNR and psnr.min() > LEAST_PSNR - 5
    assert 0.7 < latents.std() * autoencoder.SCALE < 1.4
    seen = named(judge.load().look(back))
    found = sum(len(words & set(one["things"])) for words, one in zip(seen, pictures[1], strict=True))
    assert found >= LEAST_FOUND * sum(len(one["things"]) for one in pictures[1])


@pytest.mark.slow
def test_the_model_draws_what_is_asked_for():
    """evaluate.py in small; its full run has 200 pictures of each kind."""
    parts, sees = load_pocket(), judge.load()
    said = {}
    for question in [*singles(8), *pairs(4)]:
        picture = draw(parts, question.prompt(), [question.seed])
        for what, so in answers(question, picture, sees).items():
            said.setdefault((len(question.things), what), []).append(so)
    assert sum(said[1, "all things"]) >= 6 and sum(said[2, "all things"]) >= 1
    assert sum(said[1, "background"]) + sum(said[2, "background"]) >= 11


def test_the_weights_are_small():
    files = [path for path in Path(FOLDER).iterdir() if path.suffix == ".safetensors"]
    assert files and sum(path.stat().st_size for path in files) <= ROOM * 10**6
