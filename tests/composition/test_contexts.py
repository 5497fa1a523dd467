"""Contexts of stages, of keys and values, and made ones, wherever a prompt is read beside the sampled one."""

import pytest
import torch
from comfy.model_base import ModelType
from support.clips import encoded, tiny_clip
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.contexts import random
from support.models import sample, tiny_model
from support.references import PixelVAE, TinyClip, prompt, references, with_references

from pack.nodes.host.attach import attach
from pack.nodes.host.contexts import FIRST_TIMESTEP, Contexts, FixedContexts, StagedContexts
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.image_prompts.phrases import phrases_of
from pack.nodes.inversion.inversion import inverted, levels_of
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.text_contexts.context_router import ContextRouter

BORDERS = tuple(range(100, 1000, 100))
# One step from here: the timestep is that of this noise level.
SIGMA = 3.0


@pytest.fixture
def model():
    return tiny_model("sd15")


def staged(seed, tokens=7):
    """Contexts of ten stages, keys apart from values, one for all layers."""
    shape = 10, 1, tokens, 32
    return StagedContexts(random(*shape, seed=seed), BORDERS, random(*shape, seed=seed + 1))


def text(contexts):
    plain = contexts.at(999.0)[0][:1]
    return [[plain, {LAYERS: contexts, PLAIN: plain}]]


def at(contexts, timestep):
    """The same prompt as it is at one timestep, at all of them."""
    return [[text(contexts)[0][0], {**text(contexts)[0][1], LAYERS: FixedContexts(*contexts.at(timestep))}]]


def timestep_of(model):
    return float(model.get_model_object("model_sampling").timestep(torch.tensor(SIGMA)))


def one_step(model):
    return sample(model, prompt(model, 100), prompt(model, 200), sigmas=torch.tensor([SIGMA, 0.0]))


def test_prompts_of_concepts(model):
    found = {}
    contexts = [staged(1), staged(5)]
    now, then = timestep_of(model), 50.0
    for name, positive in (
        ("staged", [text(one) for one in contexts]),
        ("now", [at(one, now) for one in contexts]),
        ("then", [at(one, then) for one in contexts]),
        ("keys alone", [text(StagedContexts(one.keys, BORDERS)) for one in contexts]),
    ):
        found[name] = one_step(conducted(model, random_concepts(model, positive=positive)))
    assert torch.equal(found["staged"], found["now"])
    assert differ(found["staged"], found["then"]) > 1e-3 and differ(found["staged"], found["keys alone"]) > 1e-3


class TextClip(TinyClip):
    """Encodes every text to one entry."""

    def __init__(self, model, entry):
        super().__init__(model)
        self.entry = entry

    def encode_from_tokens_scheduled(self, tokens):
        return self.entry


def test_prompts_of_references(model):
    def picture(entry):
        return one_step(with_references(model, references(2), clip=TextClip(model, entry), cache_mb=64))

    contexts = staged(3)
    ours = picture(text(contexts))
    assert torch.equal(ours, picture(at(contexts, timestep_of(model))))
    assert differ(ours, picture(at(contexts, 50.0))) > 1e-4


class Asked(Contexts):
    """Notes for which timesteps it is asked."""

    def __init__(self, keys):
        self.keys, self.asked = keys, []

    def at(self, timestep):
        self.asked.append(timestep)
        return self.keys, None

    def mapped(self, change):
        return self

    @property
    def contents(self):
        return (self.keys,)


def test_an_inversion_asks_at_each_of_its_levels(model):
    sampling = model.get_model_object("model_sampling")
    levels = levels_of(sampling, 5, [])
    contexts = Asked(random(1, 7, 32))
    inverted(model.model, torch.zeros(1, 4, 8, 8), (contexts.keys, {LAYERS: contexts}), levels)
    assert contexts.asked == [float(sampling.timestep(torch.tensor([level]))[0]) for level in levels]


def test_layout_guidance_asks_at_each_step(model):
    contexts = Asked(prompt(model, 500)[0][0])
    layout = {"layout_positive": [[contexts.keys, {LAYERS: contexts}]]}
    picture = {"layout_image": torch.rand(1, 64, 64, 3), "vae": PixelVAE(), "guidance_weight": 0.01}
    guided = conducted(model, random_concepts(model, 1), **layout, **picture)
    sample(guided, prompt(model, 100), prompt(model, 200), steps=4)
    assert len(set(contexts.asked)) >= 4


@pytest.mark.parametrize("model_type", [None, ModelType.V_PREDICTION_EDM])
def test_logarithms_as_timesteps_are_read_as_the_places_of_others(model_type):
    """CosXL and Playground: whoever reads a prompt asks for the timestep that any model has at that place."""
    model = tiny_model("sd15", model_type=model_type)
    sampling = model.get_model_object("model_sampling")
    levels = torch.tensor([float(sampling.percent_to_sigma(percent)) for percent in (0.15, 0.45, 0.85)])
    mine, concept, layout, row = (Asked(prompt(model, seed)[0][0]) for seed in (100, 300, 500, 600))
    taken = {"layout_positive": text(layout), "layout_image": torch.rand(1, 64, 64, 3), "vae": PixelVAE()}
    taken |= {"guidance_weight": 0.01, "guidance_end": 1.0, "inversion_steps": 0}
    guided = conducted(model, random_concepts(model, 1, positive=[text(concept)]), **taken)
    referring = with_references(attach(model, ContextRouter(())), references(1), clip=TextClip(model, text(row)))
    sigmas = torch.cat([levels, torch.zeros(1)])
    for one in (guided, referring):
        sample(one, text(mine), prompt(model, 200), sigmas=sigmas)
    for contexts in (mine, concept, layout, row):
        # the first of all stands for the plain text
        assert {round(asked, -1) for asked in contexts.asked if asked < FIRST_TIMESTEP} == {850, 550, 150}


class Maker:
    """A word's rows that turn with the timestep."""

    layers = 16
    contents = ("turning",)

    def at(self, timestep):
        return random(16, 32, seed=int(timestep)), None


def test_made_words_of_concepts_load_their_text_encoder(model):
    clip = with_words(tiny_clip(), [Word("<dog>", {"l": random(1, 32)}, maker=Maker())])
    positive = encoded(clip, "a <dog>")
    ours = conducted(model, random_concepts(model, 1, positive=[positive]))
    assert [one.model for one in ours.get_additional_models() if getattr(one, "is_clip", False)] == [clip.patcher.model]
    fixed = at(positive[0][1][LAYERS], timestep_of(model))
    assert differ(one_step(ours), one_step(conducted(model, random_concepts(model, 1, positive=[fixed])))) < 1e-6


def test_words_of_references_are_read_where_sampling_starts(model):
    """As keys read them, in the last stage; of made words the first timestep."""
    rows = random(1, 10, 1, 32, seed=4)
    clip = with_words(tiny_clip(), [Word("<dog>", {"l": rows}), Word("<cat>", {"l": rows[0, 0]}, maker=Maker())])
    dog, cat = phrases_of(model.model, clip, ["<dog>", "<cat>"])
    fixed = with_words(tiny_clip(), [Word("<dog>", {"l": rows[0, 9]})])
    assert torch.allclose(dog.rows, phrases_of(model.model, fixed, ["<dog>"])[0].rows, atol=1e-6)
    fixed = with_words(tiny_clip(), [Word("<cat>", {"l": Maker().at(999.0)[0]})])
    assert torch.allclose(cat.rows, phrases_of(model.model, fixed, ["<cat>"])[0].rows, atol=1e-5)
