"""The nodes of Concept Conductor: what they refuse and say, points, and pictures of masks."""

import math

import pytest
import torch
from support.concepts import conducted, random_concepts, random_lora, strip, with_lora
from support.models import execute, sample, tiny_model
from support.references import PixelVAE, prompt

from pack.nodes.concept_conductor import concept_conductor
from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
from pack.nodes.concept_conductor.concept_masks_node import ConceptMaskPictures
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run_records import keep_record, latest_record
from pack.nodes.inversion import layout_picture


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


@pytest.fixture
def said(monkeypatch):
    messages = []
    for module in (concept_conductor, layout_picture):
        monkeypatch.setattr(module, "warn_user", messages.append)
    return messages


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), steps=1, **kwargs)


def concept(model, **inputs):
    return execute(AddConcept, **{"model": model, "positive": prompt(model, 1), "mask": strip(0, 2), **inputs})[0]


def test_the_chain_grows_at_its_end(model):
    one = concept(model, word=" dog ")
    two = concept(model, word="cat", concepts=one, strength=0.5)
    assert [c.word for c in two] == ["dog", "cat"] and two[0] is one[0] and two[1].strength == 0.5
    assert tuple(two[1].mask.shape) == (64, 64)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"strength": math.nan}, "strength is nan"),
        ({"strength": -1.0}, "strength is -1"),
        ({"positive": []}, "prompt of concept 1 is empty"),
        ({"positive": [], "word": "cat"}, r'prompt of concept 1 \("cat"\) is empty'),
        ({"mask": torch.rand(3, 8, 8)}, "has 3 masks"),
        ({"mask": torch.full((1, 8, 8), math.nan)}, "NaN or infinite"),
    ],
)
def test_bad_concepts(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        concept(model, **inputs)


@pytest.mark.parametrize(
    "mask", [torch.ones(8, 8), torch.ones(1, 8, 8), torch.ones(1, 1, 8, 8), torch.ones(1, 8, 8, 1)]
)
def test_masks_of_all_shapes(model, mask):
    assert tuple(concept(model, mask=mask)[0].mask.shape) == (8, 8)


def test_masks_are_counted(model):
    chain = concept(model, mask=None, word="cat", concepts=concept(model))
    with pytest.raises(ValueError, match=r'a mask is missing for concept 2 \("cat"\); connect one'):
        conducted(model, chain)


def test_empty_masks_are_refused(model):
    with pytest.raises(ValueError, match="mask of concept 1 is empty"):
        conducted(model, concept(model, mask=torch.zeros(1, 64, 64)))
    dot = torch.zeros(1, 64, 64)
    dot[:, 0, 0] = 1
    with pytest.raises(ValueError, match="covers no cell"):
        picture(conducted(model, concept(model, mask=dot)))


def test_small_masks_are_told_of_with_their_cells(model, said):
    small = torch.zeros(1, 64, 64)
    small[:, :16, :16] = 1
    picture(conducted(model, concept(model, mask=small, word="mouse")))
    assert len(said) == 1
    assert 'concept 1 ("mouse")' in said[0] and "0 on the 2x2 grid" in said[0] and "4 on the 8x8 grid" in said[0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"guidance_weight": math.nan}, "guidance_weight is nan"),
        ({"refine_interval": -0.1}, "refine_interval is -0.1"),
        ({"guidance_interval": 0}, "guidance_interval is 0"),
        ({"kmeans_restarts": 0}, "kmeans_restarts is 0"),
        ({"iou_threshold": math.inf}, "iou_threshold is inf"),
    ],
)
def test_bad_numbers(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        conducted(model, concept(model), **inputs)


def test_a_model_of_another_family_is_refused(model):
    other = tiny_model("sdxl")
    with pytest.raises(ValueError, match="a different one"):
        conducted(model, concept(other, positive=prompt(other, 1)))


def test_another_checkpoint_of_the_family_runs_by_itself(model):
    """A concept that was trained into a whole checkpoint: its own UNet is loaded beside the base's."""
    other = tiny_model("sd15", seed=3)
    own = sample(other, prompt(model, 1), prompt(model, 200), steps=1, cfg=1.0)
    assert torch.isfinite(own).all()
    out = picture(conducted(model, concept(other)))
    assert not torch.allclose(out, picture(conducted(model, concept(model))), rtol=1e-2)


def test_other_models_are_refused(model):
    from types import SimpleNamespace

    flux = SimpleNamespace(model=SimpleNamespace(diffusion_model=torch.nn.Linear(1, 1)))
    with pytest.raises(ValueError, match="Concept Conductor works on UNet models"):
        execute(ConceptConductor, model=flux)


def test_contexts_of_another_model_are_refused(model):
    layered = prompt(model, 1)
    layered[0][1]["personalization_layers"] = torch.zeros(70, 7, 32)
    with pytest.raises(ValueError, match="embeddings for 70 cross-attentions, this model has 16"):
        picture(conducted(model, concept(model, positive=layered)))


def test_layer_wise_prompts_reach_their_layers(model):
    plain, layered = prompt(model, 1), prompt(model, 1)
    context = plain[0][0]
    layered[0][1]["personalization_layers"] = context.expand(16, -1, -1).clone()
    same = picture(conducted(model, concept(model, positive=layered)))
    torch.testing.assert_close(same, picture(conducted(model, concept(model, positive=plain))), rtol=1e-3, atol=1e-2)
    layered[0][1]["personalization_layers"][9] *= 2
    other = picture(conducted(model, concept(model, positive=layered)))
    assert not torch.allclose(other, same, rtol=1e-2)


def test_masks_follow_the_crop_of_the_layout_picture(model, said):
    """A mask of the layout picture's size is cropped with it; another is stretched."""
    wide = torch.zeros(1, 64, 128)
    wide[:, :, 32:64] = 1
    layout = {"layout_image": torch.rand(1, 64, 128, 3), "layout_positive": prompt(model, 1), "vae": PixelVAE()}
    for mask, columns in ((wide, slice(0, 4)), (torch.nn.functional.pad(wide, (0, 0, 0, 64)), slice(2, 4))):
        patched = conducted(model, concept(model, mask=mask), **layout, guidance_weight=1e-6)
        picture(patched)
        record = latest_record(techniques_of(patched)[0])
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[: 8 if mask is wide else 4, columns] = True
        assert torch.equal(record.start[0], expected)
    assert any("cropped" in message for message in said)


def test_unmatched_masks_are_kept_or_boxed(model):
    ends = {}
    for choice in ("rectangle", "keep"):
        mask = strip(0, 2)
        mask[:, :32, :16] = 0
        patched = conducted(
            model, concept(model, mask=mask), refine_start=0.0, refine_end=1.0, iou_threshold=1.0, unmatched=choice,
            kmeans_restarts=2,
        )  # fmt: skip
        picture(patched)
        ends[choice] = latest_record(techniques_of(patched)[0])
    assert torch.equal(ends["keep"].end[0, 0], ends["keep"].start[0])
    assert ends["rectangle"].end[0, 0].sum() > ends["rectangle"].start[0].sum()


# pictures of masks


def test_pictures_of_masks(model):
    chain = random_concepts(model, 2, word=["dog", "cat"])
    patched = conducted(model, chain, refine_start=0.0, refine_end=1.0, kmeans_restarts=5)
    latents = {"samples": picture(patched, latent=(2, 4, 8, 8))}
    grey = execute(ConceptMaskPictures, model=patched, samples=latents)[0]
    over = execute(ConceptMaskPictures, model=patched, samples=latents, images=torch.rand(2, 64, 64, 3))[0]
    for pictures in (grey, over):
        assert pictures.shape[0] == 2 and pictures.shape[-1] == 3
        assert 0 <= pictures.min() < pictures.max() <= 1
    left, right = grey[0, 26:-26, :384], grey[0, 26:-26, -384:]
    # two upright halves at the start
    assert not torch.allclose(left[:, 90], left[:, 290]) and torch.allclose(left[100, 90], left[300, 90], atol=0.02)
    assert not torch.equal(left, right)


def test_each_picture_shows_its_own_masks(model):
    patched = conducted(model, random_concepts(model, 1))
    latents, start, end = torch.rand(2, 4, 8, 8), torch.zeros(1, 8, 8).bool(), torch.zeros(1, 2, 8, 8).bool()
    end[0, 0, :, :4] = end[0, 1, :, 4:] = True
    (technique,) = techniques_of(patched)
    keep_record(technique, latents, concept_conductor.MaskRecord(start, end))
    sheets = execute(ConceptMaskPictures, model=patched, samples={"samples": latents})[0]
    # the panels on the right, without captions: grey where no mask is
    tinted = [(panel[..., 0] - panel[..., 2]).abs() > 0.1 for panel in sheets[:, 30:-30, -384:]]
    assert tinted[0][:, 8:184].all() and not tinted[0][:, 200:376].any()
    assert tinted[1][:, 200:376].all() and not tinted[1][:, 8:184].any()


def test_no_pictures_without_a_run(model):
    with pytest.raises(ValueError, match="has no Concept Conductor"):
        execute(ConceptMaskPictures, model=model, samples={"samples": torch.zeros(1, 4, 8, 8)})
    with pytest.raises(ValueError, match="has not been sampled yet"):
        execute(ConceptMaskPictures, model=conducted(model), samples={"samples": torch.zeros(1, 4, 8, 8)})


def test_several_loras_of_one_concept(model):
    both = with_lora(with_lora(model, random_lora(model, 1), 0.7), random_lora(model, 2), 0.3)
    one = picture(conducted(model, concept(both)))
    assert torch.isfinite(one).all()
    assert not torch.allclose(one, picture(conducted(model, concept(model))), rtol=1e-2)
