"""A MODEL that the host's Select Model Device sends to another card, before or behind our nodes."""

import comfy.model_management as mm
import pytest
import torch
from support.compare import relative
from support.concepts import conducted, dora, random_lora, with_lora
from support.devices import cards, model_with_factory, moved, selectable, with_cards
from support.image_prompts import with_pictures
from support.models import execute
from support.own_weights import one_concept
from support.references import PixelVAE, picture, prompt, with_references
from support.thorough import few_of

from pack.nodes.host.attach import techniques_of
from pack.nodes.masks.layout_mask_node import LayoutMask

pytestmark = with_cards

ROUNDING = 1e-6


def exact_model(**kwargs):
    return model_with_factory(dtype=torch.float64, **kwargs)


def with_style(model):
    return with_lora(model, random_lora(model, 33), 1.0)


@pytest.mark.parametrize("change", few_of([dict, dora], dora), ids=["lora", "dora"])
def test_concepts_behind_and_before(monkeypatch, change):
    with selectable(monkeypatch) as select:
        model = exact_model()
        chain = one_concept(with_style(model), change(random_lora(model, 7)))
        wanted = picture(conducted(with_style(model), chain))
        assert relative(picture(with_style(model)), wanted) > 0.01
        behind, before = moved(conducted(with_style(model), chain)), conducted(moved(with_style(model)), chain)
        select()
        for ours in (behind, before):
            assert ours.load_device == cards()[1]
            assert relative(picture(ours), wanted) < ROUNDING


@pytest.mark.slow
def test_further_techniques_behind(monkeypatch):
    """They leave what the host has sent along where it is."""
    with selectable(monkeypatch) as select:
        model = exact_model()
        chain = one_concept(model, random_lora(model, 7))
        wanted = picture(with_references(with_pictures(conducted(model, chain))))
        ours = with_references(with_pictures(moved(conducted(model, chain))))
        (adapters,) = ours.get_additional_models()
        assert adapters.load_device == cards()[1]
        select()
        assert relative(picture(ours), wanted) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["base", "concept", "conducted"])
def test_a_concept_of_another_checkpoint_comes_along(monkeypatch, sent):
    with selectable(monkeypatch) as select:
        model, other = exact_model(), exact_model(seed=3)
        file = random_lora(model, 7)
        wanted = picture(conducted(model, one_concept(other, file)))
        base = moved(model) if sent == "base" else model
        ours = conducted(base, one_concept(moved(other) if sent == "concept" else other, file))
        if sent == "conducted":
            ours = moved(ours)
        if sent != "concept":
            select()
        assert relative(picture(ours), wanted) < ROUNDING


@pytest.mark.slow
def test_on_the_cpu_all_is_there(monkeypatch):
    """The host only notes it on the MODEL, whose additional models stay where they were."""

    def made():
        model, other = exact_model(), exact_model(seed=3)
        chains = one_concept(other, random_lora(model, 7)), one_concept(model, random_lora(model, 8))
        return conducted(model, chains[0] + chains[1])

    with selectable(monkeypatch):
        wanted = picture(made())
        cpu = torch.device("cpu")
        monkeypatch.setattr(mm, "resolve_gpu_device_option", lambda device: cpu)
        # the host would not bring back a model that is on a card already
        sent = moved(made())
        monkeypatch.setattr(mm, "get_torch_device", lambda: cpu)
        assert sent.load_device == cpu
        assert relative(picture(sent), wanted) < ROUNDING


@pytest.mark.slow
def test_a_layout_picture(monkeypatch):
    """Its inversion and its mask run where the MODEL does, whatever the process would choose."""
    with selectable(monkeypatch):
        model = exact_model()
        chain = one_concept(model, random_lora(model, 7))
        sent = moved(model)
        mask = {"vae": PixelVAE(), "layout_image": torch.rand(1, 64, 64, 3)}
        here, there = (
            execute(LayoutMask, model=m, layout_positive=prompt(model, 500), **mask)[0] for m in (model, sent)
        )
        assert torch.equal(here, there)
        (technique,) = techniques_of(conducted(sent, chain, layout=True))
        for one in (model, sent):
            mm.load_models_gpu([one])
            found = technique.layout.inversion(one.model, (8, 8), [10.0, 5.0, 1.0, 0.0], one.load_device)
            assert found.latents.shape == (3, 4, 8, 8) and found.latents.device.type == "cpu"
