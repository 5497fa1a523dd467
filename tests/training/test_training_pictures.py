"""The nodes that say what a training learns from."""

import pytest
import torch
from support.models import execute

from pack.nodes.training.pictures_wire import TrainingPictures, TrainingScene
from pack.nodes.training.training_pictures_node import ScenePictures, TrainingPicturesNode

IMAGES = torch.rand(3, 64, 80, 3, generator=torch.Generator().manual_seed(0))


def masks(count, height=64, width=80):
    return torch.ones(count, height, width)


def test_a_chain_of_subjects():
    (first,) = execute(
        TrainingPicturesNode, image=IMAGES, word=" <a> ", class_word=" cat", captions="one {}\n\n two\nx"
    )
    (both,) = execute(
        TrainingPicturesNode, image=IMAGES[:1], word="<b>", captions="all {}", mask=masks(1, 8, 10), pictures=first,
        templates="person",
    )  # fmt: skip
    assert isinstance(both, TrainingPictures) and len(first.subjects) == 1
    cat, other = both.subjects
    assert (cat.word, cat.class_word, cat.captions, cat.templates) == ("<a>", "cat", ("one {}", "two", "x"), "object")
    assert cat.masks is None and torch.equal(cat.images, IMAGES)
    assert (other.captions, other.templates, other.masks.shape) == (("all {}",), "person", (1, 8, 10))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": torch.rand(1, 63, 70, 3)}, "image is 70x63 pixels; connect pictures of at least 64x64"),
        ({"image": torch.rand(0, 64, 64, 3)}, "image has no picture"),
        ({"captions": "a {}\nb {}"}, "captions has 2 lines for 3 pictures"),
        ({"mask": masks(2)}, "image has 3 pictures but 2 masks came"),
        ({"mask": torch.cat([masks(1), 0 * masks(1), masks(1)])}, "the mask of picture 2 is empty"),
        ({"mask": torch.zeros(1, 64, 64)}, "Load Image gives a black one"),
        ({"mask": torch.full((1, 64, 64), float("nan"))}, "NaN"),
        ({"word": " "}, "word is empty"),
        ({"pictures": TrainingScene(IMAGES[:1], masks(1), ("<a>",), ("",))}, "a scene, which is learned alone"),
    ],
)
def test_pictures_that_nothing_can_be_learned_from(inputs, says):
    with pytest.raises(ValueError, match=says):
        execute(TrainingPicturesNode, **{"image": IMAGES, **inputs})


def test_a_scene():
    (scene,) = execute(ScenePictures, image=IMAGES[:1], masks=masks(2), words=" <a>,<b> ", class_words="cat, apple")
    assert isinstance(scene, TrainingScene) and scene.image.shape == (1, 64, 80, 3)
    assert scene.words == ("<a>", "<b>") and scene.class_words == ("cat", "apple") and scene.masks.shape == (2, 64, 80)
    assert execute(ScenePictures, image=IMAGES[:1], masks=masks(2))[0].class_words == ("", "")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"image": IMAGES}, "image is a batch of 3 pictures, a scene is one"),
        ({"masks": masks(3)}, "masks has 3 masks and words 2 words"),
        ({"words": "<a>, <b>,"}, "words is empty or has an empty place"),
        ({"words": "<a>, <a>"}, "a word stands twice"),
        ({"class_words": "cat"}, "class_words has 1 words for 2 things"),
        ({"masks": torch.cat([masks(1), 0 * masks(1)])}, "the mask of thing 2 is empty"),
    ],
)
def test_scenes_that_nothing_can_be_learned_from(inputs, says):
    with pytest.raises(ValueError, match=says):
        execute(ScenePictures, **{"image": IMAGES[:1], "masks": masks(2), **inputs})
