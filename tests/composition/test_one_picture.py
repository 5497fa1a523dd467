"""What works from one picture, beside each other and beside the rest: DreamTuner, Reference Only, guidance, PILOT."""

import itertools

import pytest
import torch
from support.compare import relative
from support.concepts import conducted
from support.controlnets import controlnet
from support.editing import painted
from support.image_prompts import with_pictures
from support.models import sample, tiny_model
from support.reference_family import dreamtuner, guided, guided_dreamtuner, reference_only
from support.references import prompt, with_references
from support.thorough import few_rows_of

from nodes import ControlNetApplyAdvanced
from pack.nodes.editing import pilot_series

FAMILY = {"DreamTuner": dreamtuner, "Reference Only": reference_only, "guided": guided_dreamtuner}
OTHERS = {"MIP-Adapter": with_pictures, "Concept Conductor": conducted}
ALL = {**FAMILY, "MRSA": with_references, **OTHERS}
REFUSED = ("guided", "Concept Conductor")
# long enough to show, short enough for the rounding of a random network
MOVES = {"operations": 1, "interval": 1, "gamma": 1.0, "lr": 0.02, "lr_first": 0.02}
ROUNDING, ACTS = 1e-4, 1e-3


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def gradients(monkeypatch):
    """The gradient of each of PILOT's operations."""
    found, real = [], pilot_series.Series._gradient_of
    monkeypatch.setattr(pilot_series.Series, "_gradient_of", lambda *args: found.append(real(*args)) or found[-1])
    return found


def hole(model):
    return painted(model, **MOVES)[0]


def drawn(model, positive=None, **kwargs):
    texts = prompt(model, 100, 77) if positive is None else positive, prompt(model, 200, 77)
    return sample(model, *texts, **{"steps": 2, **kwargs})


@pytest.mark.slow
@pytest.mark.parametrize("what", ALL)
def test_beside_pilot_in_any_order(model, what, gradients):
    """Each acts in the sampler's own evaluations; what moves the latent before the first of them does not see it."""
    beside = ALL[what]
    alone, bare, found = drawn(hole(model)), drawn(beside(model)), []
    for patched in (hole(beside(model)), beside(hole(model))):
        found.append(drawn(patched))
        assert relative(gradients[2 * len(found)], gradients[0]) < ROUNDING
        assert relative(found[-1], alone) > ACTS and relative(found[-1], bare) > ACTS
    assert relative(*found) < ROUNDING


@pytest.mark.slow
def test_a_controlnet_acts_beside_pilot_in_the_steps_alone(model, gradients):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    text = prompt(model, 100, 77)
    (held, _) = ControlNetApplyAdvanced().apply_controlnet(text, text, controlnet(model), hint, 1.0, 0.0, 1.0)
    patched = hole(model)
    alone = drawn(patched)
    first = gradients.copy()
    gradients.clear()
    assert relative(drawn(patched, held), alone) > ACTS
    assert relative(gradients[0], first[0]) < ROUNDING


PAIRS = [pair for pair in itertools.product(FAMILY, OTHERS) if pair != REFUSED]


@pytest.mark.parametrize(("what", "other"), few_rows_of(PAIRS, ("DreamTuner", "MIP-Adapter")))
def test_the_family_beside_others_in_any_order(model, what, other):
    one, two = FAMILY[what], OTHERS[other]
    first, second = drawn(two(one(model))), drawn(one(two(model)))
    assert relative(first, second) < ROUNDING
    assert relative(first, drawn(one(model))) > ACTS and relative(first, drawn(two(model))) > ACTS


def test_guidance_is_refused_beside_concept_conductor(model):
    for patched in (guided(conducted(dreamtuner(model))), conducted(guided_dreamtuner(model))):
        with pytest.raises(ValueError, match="Reference Guidance does not work beside Concept Conductor; bypass one"):
            drawn(patched)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd2", "sdxl"])
def test_all_at_once_on_other_kinds(kind):
    """Guidance over DreamTuner, Reference Only and MRSA around a hole: every part still acts."""
    model = tiny_model(kind, seed=5 if kind == "sd2" else None)
    parts = {"dreamtuner": dreamtuner, "only": reference_only, "mrsa": with_references, "hole": hole}

    def without(left_out):
        patched = guided(model, reference_scale=2.0)
        for name, part in parts.items():
            patched = patched if name == left_out else part(patched)
        return drawn(patched)

    whole = without(None)
    assert bool(torch.isfinite(whole).all())
    for name in parts:
        assert relative(without(name), whole) > ACTS
