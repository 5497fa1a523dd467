"""Image tokens of references through a vision tower of the host: recorded encodings, cut-outs, views, refusals."""

from types import SimpleNamespace

import comfy.model_management
import pytest
import torch
import torch.nn.functional as F
from support.compare import close
from support.golden_data import case
from support.image_adapters import file_weights, golden_weights, tiny_clip_vision, tiny_form

from pack.nodes.image_adapters.image_adapter import adapter_from
from pack.nodes.image_adapters.image_tokens import cut_out, empty_tokens, squared, subject_tokens, zero_pixels
from pack.nodes.image_prompts.mip_adapter import encode_pixels
from pack.nodes.references import reference_views as pictures
from pack.nodes.references.references_wire import Reference


class Watched:
    """A CLIP_VISION that keeps the pictures it is shown; `answers` are the rows it gives instead of its tower's."""

    def __init__(self, tower=None, answers=None):
        self.tower, self.answers, self.seen = tower, answers, []

    def encode_image(self, image):
        self.seen.append(image)
        if self.tower is not None:
            return self.tower.encode_image(image)
        first = sum(len(seen) for seen in self.seen) - len(image)
        return SimpleNamespace(**{name: t[first : first + len(image)] for name, t in self.answers.items()})


@pytest.fixture(scope="module")
def tower():
    return tiny_clip_vision()


@pytest.fixture(scope="module")
def recorded():
    return case("mip_adapter/encode")[0]


def adapter_of(name="sdxl_plus"):
    return adapter_from(golden_weights(name), f"{name}.safetensors")


def preprocessed(tower, image, monkeypatch):
    """The pixels that the host makes of a picture."""
    seen = []
    with monkeypatch.context() as patch:
        forward = tower.model.forward
        patch.setattr(tower.model, "forward", lambda **inputs: seen.append(inputs["pixel_values"]) or forward(**inputs))
        tower.encode_image(image)
    return seen[0]


# the recorded case `encode`


def test_recorded_pixels(tower, recorded, monkeypatch):
    for number in (0, 1):
        padded = recorded[f"image_padded_{number}"].float() / 255
        pixels = preprocessed(tower, squared(padded), monkeypatch)
        close(pixels[0], recorded["pixel_values_padded"][number], 1e-5)
        cropped = preprocessed(tower, recorded[f"image_{number}"][None].float() / 255, monkeypatch)
        # the host may round the longer side where the recorded pixels were cut off
        difference = (cropped[0] - recorded["pixel_values_crop"][number]).abs().mean()
        assert float(difference) < (2e-3 if number else 5e-2)


def test_recorded_encodings(tower, recorded):
    seen = encode_pixels(tower, recorded["pixel_values_crop"])
    close(seen.penultimate_hidden_states, recorded["penultimate"], 2e-4)
    close(seen.image_embeds, recorded["image_embeds"], 2e-4)
    adapter = adapter_of()
    close(adapter.project(seen.penultimate_hidden_states), recorded["tokens"], 2e-4)
    close(adapter.project(recorded["penultimate"]), recorded["tokens"], 5e-6)


def test_recorded_zero_pixels_are_no_black_picture(tower, recorded):
    adapter = adapter_of()
    pixels = zero_pixels(tower)
    assert pixels.shape == (1, 3, 56, 56) and not pixels.any()
    hidden = encode_pixels(tower, pixels).penultimate_hidden_states
    close(hidden, recorded["penultimate_zero_pixels"], 2e-4)
    found = empty_tokens(adapter, hidden)
    close(found, recorded["tokens_uncond_zero_pixels"][0], 2e-4)
    assert (found - recorded["tokens_uncond_black_image"][0]).abs().mean() > 0.1


def test_seams_agree(tower, recorded):
    """The host's encode_image is encode_pixels of its own pixels."""
    image = recorded["image_padded_0"][None].float() / 255
    mean, std = (torch.tensor(values) for values in (tower.image_mean, tower.image_std))
    ours = encode_pixels(tower, ((image - mean) / std).movedim(-1, 1))
    theirs = tower.encode_image(image)
    for name in ("image_embeds", "penultimate_hidden_states"):
        close(getattr(ours, name), getattr(theirs, name), 2e-5)
    assert ours.image_embeds.device == theirs.image_embeds.device


@pytest.mark.parametrize(
    "name", ["sdxl_base_1ref", "sdxl_base_2obj_5img_batch2", "sdxl_plus_3ref", "sd15_plus_2ref", "sd15_ip_adapter_2ref"]
)
def test_recorded_tokens(name):
    recorded, parameters = case(f"mip_adapter/{name}")
    adapter = adapter_of(parameters["weights"].removeprefix("weights_").removesuffix(".safetensors"))
    key = "clip_image_embeds" if adapter.variant == "base" else "clip_penultimate"
    vision = Watched(answers={adapter.embed.output: recorded[key]})
    references = [Reference(torch.rand(count, 20, 30, 3)) for count in parameters["images_per_object"]]
    close(subject_tokens(adapter, vision, references), recorded["image_tokens_cond"], 5e-6)
    shown = torch.cat([reference.image for reference in references])
    # one call per picture, in chain order, on white squares
    assert [image.shape for image in vision.seen] == [(1, 30, 30, 3)] * len(shown)
    assert all(torch.equal(image[0, 5:25], own) for image, own in zip(vision.seen, shown, strict=True))
    hidden = recorded["clip_penultimate_uncond"][:1] if adapter.variant == "plus" else None
    close(empty_tokens(adapter, hidden), recorded["image_tokens_uncond"][0], 5e-6)


# pictures


@pytest.mark.parametrize(("height", "width", "top", "left"), [(4, 9, 2, 0), (9, 4, 0, 2), (5, 5, 0, 0), (1, 8, 3, 0)])
def test_pictures_stand_on_a_white_square(height, width, top, left):
    image = torch.rand(height, width, 3)
    square = squared(image)
    side = max(height, width)
    assert square.shape == (1, side, side, 3)
    assert torch.equal(square[0, top : top + height, left : left + width], image)
    assert int((square == 1).all(-1).sum()) == side * side - height * width


def test_a_mask_cuts_the_subject_out():
    image, mask = torch.rand(12, 16, 3), torch.zeros(12, 16)
    mask[3:9, 5:10] = 1
    mask[4, 6] = 0.25
    cut = cut_out(image, mask, "reference 1")
    assert cut.shape == (6, 5, 3)
    expected = image[3:9, 5:10].clone()
    expected[1, 1] = 0.25 * image[4, 6] + 0.75
    torch.testing.assert_close(cut, expected)


def test_masks_of_other_sizes_follow_the_picture():
    image = torch.rand(32, 48, 3)
    mask = torch.zeros(1, 8, 12)
    mask[:, 2:6, 3:9] = 1
    # bilinear: half a mask pixel of ramp on each side
    assert cut_out(image, mask[0], "reference 1").shape == (20, 28, 3)
    big = F.interpolate(mask[None], scale_factor=16, mode="nearest")[0, 0]
    torch.testing.assert_close(cut_out(image, big, "reference 1"), image[8:24, 12:36])


def test_what_the_mask_hides_does_not_count(tower):
    adapter = adapter_of()
    image, mask = torch.rand(1, 40, 60, 3), torch.zeros(1, 40, 60)
    mask[:, 10:30, 20:50] = 1
    first = subject_tokens(adapter, tower, [Reference(image, mask=mask)])
    other = torch.where(mask[..., None] > 0, image, torch.rand(1, 40, 60, 3))
    assert torch.equal(first, subject_tokens(adapter, tower, [Reference(other, mask=mask)]))
    assert torch.equal(first, subject_tokens(adapter, tower, [Reference(image[:, 10:30, 20:50])]))
    assert not torch.allclose(first, subject_tokens(adapter, tower, [Reference(image)]), atol=1e-2)


def test_sides_of_a_wide_picture_count(tower):
    """The host's own crop would not see them."""
    image = torch.rand(1, 40, 90, 3)
    other = image.clone()
    other[:, :, :15] = 0
    adapter = adapter_of()
    one, two = (subject_tokens(adapter, tower, [Reference(i)]) for i in (image, other))
    assert not torch.allclose(one, two, atol=1e-2)


@pytest.mark.parametrize("variant", ["base", "plus", "full-face"])
def test_views_are_averaged_after_the_projection(tower, variant):
    adapter = adapter_from(file_weights(**tiny_form("sdxl", variant)), "x")
    views = torch.rand(3, 40, 30, 3)
    masks = torch.zeros(3, 40, 30)
    masks[0, 4:20, 4:20], masks[1, 10:30, 3:9], masks[2] = 1, 1, 1
    found = subject_tokens(adapter, tower, [Reference(views, mask=masks), Reference(views[1:2])])
    alone = [
        subject_tokens(adapter, tower, [Reference(view[None], mask=mask[None])])[0]
        for view, mask in zip(views, masks, strict=True)
    ]
    close(found[0], torch.stack(alone).mean(0), 1e-6)
    assert torch.equal(found[1], subject_tokens(adapter, tower, [Reference(views[1:2])])[0])
    assert found.shape == (2, 17 if variant == "full-face" else adapter.tokens, 48) and found.dtype == torch.float32
    hidden = None if variant == "base" else encode_pixels(tower, zero_pixels(tower)).penultimate_hidden_states
    assert empty_tokens(adapter, hidden).shape == found.shape[1:]


def test_order_is_the_chains_and_inputs_stay_as_they_are(tower):
    adapter = adapter_of()
    chain = [Reference(torch.rand(1, 20 + n, 30, 3), mask=torch.ones(1, 9, 9)) for n in range(3)]
    before = [reference.image.clone() for reference in chain]
    weights = {name: t.clone() for name, t in adapter.projection.weights.items()}
    found = subject_tokens(adapter, tower, chain)
    assert torch.equal(found, subject_tokens(adapter, tower, chain[::-1]).flip(0))
    assert all(torch.equal(a, reference.image) for a, reference in zip(before, chain, strict=True))
    assert all(torch.equal(weights[name], t) for name, t in adapter.projection.weights.items())
    assert subject_tokens(adapter, tower, []).shape == (0, 16, 48)


def test_an_empty_mask_of_a_picture_without_alpha_is_no_mask(tower, monkeypatch):
    told = []
    monkeypatch.setattr(pictures, "warn_user", told.append)
    adapter = adapter_of()
    image = torch.rand(1, 40, 60, 3)
    plain = subject_tokens(adapter, tower, [Reference(image)])
    assert torch.equal(plain, subject_tokens(adapter, tower, [Reference(image, "cat", mask=torch.zeros(1, 64, 64))]))
    assert len(told) == 1 and told[0].startswith('reference 1 ("cat"): its mask has one value everywhere')


def test_encoders_of_half_precision(tower):
    adapter = adapter_of("sdxl_base")
    embeds = torch.randn(1, 24)
    for dtype in (torch.float16, torch.bfloat16):
        half = Watched(answers={"image_embeds": embeds.to(dtype)})
        full = Watched(answers={"image_embeds": embeds.to(dtype).float()})
        tokens = [subject_tokens(adapter, vision, [Reference(torch.rand(1, 8, 8, 3))]) for vision in (half, full)]
        assert tokens[0].dtype == torch.float32 and torch.equal(*tokens)


# what is refused


def published(variant, kind, embed):
    width = 768 if kind == "sd15" else 2048
    return adapter_from(file_weights(variant=variant, width=width, embed=embed, dim=64, inner=64, layers=[4]), "a.bin")


VIT_L, VIT_H, BIG_G = (768, 1024), (1024, 1280), (1280, 1664)


@pytest.mark.parametrize(
    ("adapter", "widths", "says"),
    [
        (("base", "sdxl", 1280), VIT_H, "expects image_embeds of 1280 (ViT-bigG), got 1024 (ViT-H); load ViT-bigG"),
        (("base", "sdxl", 1280), VIT_L, "expects image_embeds of 1280 (ViT-bigG), got 768 (ViT-L); load ViT-bigG"),
        (("base", "sd15", 1024), BIG_G, "expects image_embeds of 1024 (ViT-H), got 1280 (ViT-bigG); load ViT-H"),
        (("plus", "sdxl", 1280), BIG_G, "expects penultimate_hidden_states of 1280 (ViT-H), got 1664 (ViT-bigG); load"),
        (("plus", "sd15", 1280), VIT_L, "expects penultimate_hidden_states of 1280 (ViT-H), got 1024 (ViT-L); load"),
        (("full-face", "sd15", 1280), VIT_L, "expects penultimate_hidden_states of 1280 (ViT-H), got 1024 (ViT-L)"),
    ],
)
def test_the_wrong_tower_is_named(adapter, widths, says):
    vision = Watched(
        answers={"image_embeds": torch.randn(1, widths[0]), "penultimate_hidden_states": torch.randn(1, 257, widths[1])}
    )
    found = published(*adapter)
    with pytest.raises(ValueError) as caught:
        subject_tokens(found, vision, [Reference(torch.rand(1, 8, 8, 3))])
    assert str(caught.value).startswith(f"a.bin {says}") and str(caught.value).endswith(" with Load CLIP Vision")
    if found.variant != "base":
        with pytest.raises(ValueError, match="expects penultimate_hidden_states of 1280"):
            empty_tokens(found, torch.zeros(1, 257, widths[1]))


def test_what_cannot_be_encoded(tower):
    adapter = adapter_of()
    picture = torch.rand(1, 16, 16, 3)
    with pytest.raises(ValueError, match="clip_vision is empty, but sdxl_plus.safetensors needs .*; load it"):
        subject_tokens(adapter, None, [Reference(picture)])
    with pytest.raises(ValueError, match='reference 2 \\("hat"\\): its mask is black, so nothing is left'):
        faint = torch.zeros(1, 16, 16)
        faint[:, 0, 0] = 1e-4
        subject_tokens(adapter, tower, [Reference(picture), Reference(picture, "hat", mask=faint)])
    with pytest.raises(ValueError, match="reference 1 has 3 pictures but 2 masks"):
        subject_tokens(adapter, tower, [Reference(picture.expand(3, -1, -1, -1), mask=torch.ones(2, 16, 16))])
    with pytest.raises(ValueError, match="reference 1 has NaN or infinite values"):
        subject_tokens(adapter, tower, [Reference(picture / 0)])
    with pytest.raises(ValueError, match="this vision encoder gives none"):
        subject_tokens(adapter, Watched(answers={"image_embeds": torch.zeros(1, 24)}), [Reference(picture)])
    broken = Watched(answers={"penultimate_hidden_states": torch.full((1, 5, 32), torch.nan)})
    with pytest.raises(ValueError, match="reference 1: the vision encoder produced NaN or infinite values"):
        subject_tokens(adapter, broken, [Reference(picture)])
    with pytest.raises(ValueError, match="gives none"):
        empty_tokens(adapter)


def test_an_interrupt_stops_between_pictures():
    class Interrupting(Watched):
        def encode_image(self, image):
            comfy.model_management.interrupt_current_processing()
            return super().encode_image(image)

    vision = Interrupting(answers={"penultimate_hidden_states": torch.randn(3, 5, 32)})
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        subject_tokens(adapter_of(), vision, [Reference(torch.rand(3, 8, 8, 3))])
    assert len(vision.seen) == 1
