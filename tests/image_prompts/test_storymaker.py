"""StoryMaker by property: what the encoder is shown, the places of people, who joins, what is refused."""

import pytest
import torch
from support.compare import differ
from support.faces import face
from support.golden_data import case
from support.identity import SeenVision, adapter_of_case, give_faces, two_people, with_storymaker
from support.image_prompts import references_of, with_pictures
from support.models import execute, tiny_model
from support.references import draw, picture

from pack.nodes.faces.face_views import FaceView
from pack.nodes.image_prompts.storymaker import body_crop
from pack.nodes.image_prompts.storymaker_node import StoryMaker
from pack.nodes.references.references_wire import Reference


@pytest.fixture(scope="module")
def sdxl():
    return tiny_model("sdxl")


class ShownVision(SeenVision):
    """Keeps the pictures that it is shown."""

    def __init__(self):
        self.shown = []

    def encode_image(self, image, crop=True):
        self.shown.append(image)
        return super().encode_image(image, crop)


def test_the_encoder_is_shown_the_face_and_the_body(sdxl, monkeypatch):
    golden, _ = case("storymaker/crops")
    give_faces(monkeypatch, [face(keypoints=golden["keypoints"], x=70, y=60)])
    mask = golden["mask"].float()[None] / 255
    person = (Reference(golden["picture"].float()[None] / 255, "person", mask=mask),)
    vision = ShownVision()
    given = {"adapter": adapter_of_case("storymaker", "weights"), "face_analysis": None, "clip_vision": vision}
    execute(StoryMaker, model=sdxl, references=person, **given)
    shown = [(one[0] * 255).round().int() for one in vision.shown]
    assert [one.shape for one in vision.shown] == [(1, 224, 224, 3)] * 2
    assert (shown[0] - golden["face_224"].int()).abs().max() <= 3
    assert (shown[1] - golden["body_224"].int()).abs().max() <= 2


def test_a_mask_that_vanishes_at_the_size_of_the_picture_is_said():
    mask = torch.zeros(512, 512)
    mask[0, 0] = 1
    view = FaceView("reference 1", draw(64, 64, 3).clamp(0, 1), mask, box=None, keypoints=None, embedding=None)
    with pytest.raises(ValueError, match="reference 1: its mask is black at the picture's size, so nothing is left"):
        body_crop(view)


def test_clothes_belong_to_one_person(sdxl, monkeypatch, caplog):
    vision = ShownVision()
    cloth = torch.full((1, 30, 60, 3), 0.25)
    with_storymaker(sdxl, monkeypatch, clip_vision=vision, cloth=cloth)
    # face and clothes of the first, face and own body of the second
    assert len(vision.shown) == 4
    assert torch.allclose(vision.shown[1], torch.tensor(63 / 255)) and not torch.allclose(
        vision.shown[3], vision.shown[1]
    )
    assert "reference 2" in caplog.text and 'reference 1 ("a woman"): it has no mask of the person' not in caplog.text
    with pytest.raises(ValueError, match="cloth has 3 pictures for 2 references"):
        with_storymaker(sdxl, monkeypatch, cloth=torch.rand(3, 8, 8, 3))


def test_order_tells_people_apart(sdxl, monkeypatch):
    faces = [face(draw(512, seed=i)) for i in (1, 2)]
    chain = two_people()
    one = picture(with_storymaker(sdxl, monkeypatch, faces=faces, references=chain))
    other = picture(with_storymaker(sdxl, monkeypatch, faces=faces[::-1], references=chain[::-1]))
    assert differ(one, other) > 1e-3


def test_three_people_and_no_more(sdxl, monkeypatch):
    faces = [face(draw(512, seed=i)) for i in range(4)]
    three = references_of(("a", "b", "c"))
    assert torch.isfinite(picture(with_storymaker(sdxl, monkeypatch, faces=faces, references=three), steps=1)).all()
    with pytest.raises(ValueError, match="4 references are connected, weights.safetensors has places for 3"):
        with_storymaker(sdxl, monkeypatch, faces=faces, references=references_of(("a", "b", "c", "d")))


def test_too_many_who_join(sdxl, monkeypatch):
    adapter = {"adapter": adapter_of_case("storymaker", "weights")}
    first = with_storymaker(sdxl, monkeypatch, **adapter)
    with pytest.raises(ValueError, match="4 people are connected, weights.safetensors has places for 3"):
        with_storymaker(first, monkeypatch, **adapter)


def test_several_pictures_of_a_person_are_averaged(sdxl, monkeypatch):
    same = [face(draw(512, seed=1))]
    once = with_storymaker(sdxl, monkeypatch, faces=same, references=two_people()[:1])
    twice = with_storymaker(sdxl, monkeypatch, faces=same * 2, references=references_of(("a woman",), [2]))
    assert differ(picture(once), picture(twice)) < 1e-3


def test_strength_0_leaves_the_other_person(sdxl, monkeypatch):
    """Their tokens stay in the softmax, and give nothing."""
    chain = two_people(strengths=[1.0, 0.0])
    assert torch.isfinite(picture(with_storymaker(sdxl, monkeypatch, references=chain), steps=1)).all()
    nobody = two_people(strengths=[0.0, 0.0])
    assert with_storymaker(sdxl, monkeypatch, references=nobody, lora_strength=0.0) is sdxl


def test_files_and_models_of_others_are_refused(sdxl, monkeypatch):
    story = adapter_of_case("storymaker", "weights")
    with pytest.raises(ValueError, match="is a StoryMaker file; use the node StoryMaker.*MIP-Adapter needs"):
        with_pictures(sdxl, adapter=story)
    with pytest.raises(ValueError, match="is a FaceID plus file; use the node FaceID.*StoryMaker needs"):
        with_storymaker(sdxl, monkeypatch, adapter=adapter_of_case("faceid", "weights_sdxl_plusv2"))
    with pytest.raises(ValueError, match="choose an adapter for"):
        with_storymaker(tiny_model("sd15"), monkeypatch)
    with pytest.raises(ValueError, match="clip_vision is empty"):
        with_storymaker(sdxl, monkeypatch, clip_vision=None)
    with pytest.raises(ValueError, match="scale is nan"):
        with_storymaker(sdxl, monkeypatch, scale=float("nan"))


@pytest.mark.parametrize(
    "key", ["bg_embed", "pos_embed", "resample.latents", "proj_out.weight", "norm.bias", "proj.2.bias"]
)
def test_every_tensor_is_checked(key):
    from pack.nodes.image_adapters.image_adapter import adapter_from

    weights, _ = case("storymaker/weights")
    name = f"image_proj_model.{key}"
    with pytest.raises(ValueError, match="is missing|unexpected|it has no|a body 0"):
        adapter_from({k: t for k, t in weights.items() if k != name}, "x.bin")
    with pytest.raises(ValueError, match="has the shape|axes|tokens|unexpected"):
        adapter_from({**weights, name: torch.zeros(*weights[name].shape, 2)}, "x.bin")
