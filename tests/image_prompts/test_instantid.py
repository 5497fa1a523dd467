"""InstantID by property: IdentityNet's picture, prompt, place and time; what is refused; what costs nothing."""

from types import SimpleNamespace

import comfy.controlnet
import pytest
import torch
from support.compare import differ
from support.controlnets import controlnet, identity_net
from support.faces import face
from support.golden_data import case
from support.identity import adapter_of_case, give_faces, two_people, with_faceid, with_instantid
from support.image_prompts import TinyWords, references_of
from support.models import execute, recording, sample, tiny_model
from support.references import draw, half_mask, picture, prompt

from pack.kernels.keypoint_picture import keypoint_picture
from pack.nodes.host.attach import technique_of
from pack.nodes.image_prompts.identity_passes import with_residuals
from pack.nodes.image_prompts.instantid_node import InstantID


@pytest.fixture(scope="module")
def sdxl():
    return tiny_model("sdxl")


class WatchedNet:
    """An IdentityNet whose calls are noted."""

    def __init__(self, monkeypatch):
        self.net, self.calls = identity_net(), []
        original = self.net.control_model.forward

        def forward(**given):
            self.calls.append(SimpleNamespace(**given))
            return original(**given)

        monkeypatch.setattr(self.net.control_model, "forward", forward)


@pytest.fixture
def watched(monkeypatch):
    return WatchedNet(monkeypatch)


def test_the_net_sees_faces_alone_and_their_points(sdxl, watched, monkeypatch):
    """Its prompt is the person's tokens, on negative rows nobody's; its picture the points at the result's size."""
    points = torch.tensor([[20.0, 20.0], [44.0, 20.0], [32.0, 32.0], [24.0, 44.0], [40.0, 44.0]])
    faces = [face(draw(512, seed=i), keypoints=points / 64 * 16) for i in (1, 2)]
    model = with_instantid(sdxl, monkeypatch, faces=faces, control_net=watched.net)
    picture(model, steps=1)
    (call,) = watched.calls
    # two people, each with a positive and a negative row
    assert call.x.shape[0] == call.context.shape[0] == call.hint.shape[0] == call.y.shape[0] == 4
    member = technique_of(model, "identity_net").members[0]
    uncond_first = torch.equal(call.context[0], member.empty[0])
    for person in (0, 1):
        positive, negative = (2 * person + int(uncond_first), 2 * person + 1 - int(uncond_first))
        assert torch.equal(call.context[positive], member.tokens[person])
        assert torch.equal(call.context[negative], member.empty[person])
    # the references' pictures have 16 pixels, the result 64
    expected = keypoint_picture([points], (64, 64)).movedim(-1, 0).float() / 255
    assert torch.equal(call.hint[0], expected) and torch.equal(call.hint[3], expected)


def test_all_faces_together_are_one_pass(sdxl, watched, monkeypatch):
    model = with_instantid(sdxl, monkeypatch, control_net=watched.net, control_passes="together")
    assert torch.isfinite(picture(model, steps=1)).all()
    (call,) = watched.calls
    assert call.x.shape[0] == 2 and call.context.shape == (2, 32, 48) and len(call.hint) == 1


def test_its_own_window(sdxl, watched, monkeypatch):
    model = with_instantid(sdxl, monkeypatch, control_net=watched.net, control_start=0.3, control_end=0.6, scale=0.0)
    patched, calls = recording(model)
    bare, bare_calls = recording(sdxl)
    picture(patched, steps=10)
    picture(bare, steps=10)
    assert len(watched.calls) == 3
    # before it nothing is changed
    for own, other in zip(calls.calls[:3], bare_calls.calls[:3], strict=True):
        assert torch.equal(own.cond, other.cond) and torch.equal(own.uncond, other.uncond)
    assert not torch.equal(calls.calls[3].cond, bare_calls.calls[3].cond)


def residuals_of(model, monkeypatch, **kwargs):
    """The residuals that the UNet got from all nets in one step."""
    seen, base = [], model.model.diffusion_model
    original = base._forward

    def forward(x, timesteps, context=None, y=None, control=None, transformer_options=None, **more):
        seen.append({name: list(values) for name, values in control.items()})
        return original(x, timesteps, context, y, control, transformer_options, **more)

    monkeypatch.setattr(base, "_forward", forward)
    picture(model, steps=1, **kwargs)
    monkeypatch.setattr(base, "_forward", original)
    return seen[0]


def test_each_person_in_the_own_region(sdxl, monkeypatch):
    """On each half the residuals are those of one person alone; without regions each has a half everywhere."""
    net = identity_net()
    faces = [face(draw(512, seed=i), x=8, y=8, side=8) for i in (1, 2)]
    left = torch.zeros(1, 64, 64)
    left[..., :32] = 1

    def found(chain, given, regions=None):
        chain = chain if regions is None else references_of(("a woman", "man"), regions=regions)
        return residuals_of(
            with_instantid(sdxl, monkeypatch, faces=given, control_net=net, references=chain), monkeypatch
        )

    chain = two_people()
    one, two = found(chain[:1], faces[:1]), found(chain[1:], faces[1:])
    both, apart = found(chain, faces), found(chain, faces, [left, 1 - left])
    for name in ("output", "middle"):
        for a, b, mean, parted in zip(one[name], two[name], both[name], apart[name], strict=True):
            assert differ(mean, (a + b) / 2) < 1e-5
            if parted.shape[-1] == 8:
                assert differ(parted[..., :3], a[..., :3]) < 1e-5 and differ(parted[..., 5:], b[..., 5:]) < 1e-5


def test_a_person_of_strength_0_costs_no_pass(sdxl, watched, monkeypatch):
    """And holds the own region all the same, so that the other one is as before."""
    with_one, without = (two_people(strengths=[1.0, strength]) for strength in (1e-6, 0.0))
    found = []
    for chain, passes in ((with_one, 2), (without, 1)):
        watched.calls.clear()
        model = with_instantid(sdxl, monkeypatch, control_net=watched.net, references=chain)
        found.append(residuals_of(model, monkeypatch)["middle"][0])
        assert [len(call.x) for call in watched.calls] == [2 * passes]
    assert differ(*found) < 1e-5


def test_strengths_and_the_scale(sdxl, monkeypatch):
    net = identity_net()
    whole, half, weak = (
        residuals_of(with_instantid(sdxl, monkeypatch, control_net=net, **inputs), monkeypatch)
        for inputs in ({}, {"control_strength": 0.4}, {"references": two_people(strengths=[0.5, 0.5])})
    )
    assert differ(half["middle"][0] * 2, whole["middle"][0]) < 1e-5
    assert differ(weak["middle"][0] * 2, whole["middle"][0]) < 1e-5


def test_an_area_gets_its_part_of_the_picture(sdxl, watched, monkeypatch):
    """The host's own class would squeeze the whole face into the area."""
    points = torch.tensor([[20.0, 20.0], [44.0, 20.0], [32.0, 32.0], [24.0, 44.0], [40.0, 44.0]]) / 4
    model = with_instantid(sdxl, monkeypatch, faces=[face(keypoints=points)] * 2, control_net=watched.net)
    ((tensor, values),) = prompt(sdxl, 100)
    area = [[tensor, {**values, "area": (8, 4, 0, 4)}]]
    sample(model, [*prompt(sdxl, 100), *area], prompt(sdxl, 200), steps=1)
    hints = {tuple(call.hint.shape[-2:]): call.hint for call in watched.calls}
    whole = keypoint_picture([points * 4], (64, 64)).movedim(-1, 0).float() / 255
    assert torch.equal(hints[64, 64][0], whole) and torch.equal(hints[64, 32][0], whole[:, :, 32:])


def test_unknown_parts_go_without(sdxl, watched, monkeypatch, caplog):
    model = with_instantid(sdxl, monkeypatch, control_net=watched.net, scale=0.0)

    def cropped(executor, x, *args, **kwargs):
        return torch.nn.functional.pad(executor(x[..., :6], *args, **kwargs), (0, 2))

    patched = model.clone()
    patched.add_wrapper_with_key("apply_model", "crops", cropped)
    picture(patched, steps=1)
    assert not watched.calls and "IdentityNet is left out where another node samples an unknown part" in caplog.text


def test_residuals_join_what_stands():
    """Lists are aligned at their ends, from which the UNet takes; none of the standing ones is changed."""
    a, b, c = (torch.full((1, 1, 2, 2), value) for value in (1.0, 2.0, 4.0))
    standing = {"output": [None, a], "input": [c], "middle": []}
    found = with_residuals(standing, {"output": [b, b, b], "middle": [c]})
    assert [float(one.mean()) for one in found["output"]] == [2.0, 2.0, 3.0]
    assert found["input"][0] is c and found["middle"][0] is c
    assert standing == {"output": [None, a], "input": [c], "middle": []} and a.mean() == 1
    assert with_residuals(None, {}) is None and with_residuals(standing, {})["output"][1] is a


def test_without_a_net_only_the_cross_attention(sdxl, monkeypatch):
    model = with_instantid(sdxl, monkeypatch, control_net=None)
    assert technique_of(model, "identity_net") is None and differ(picture(model), picture(sdxl)) > 1e-3
    off = with_instantid(sdxl, monkeypatch, control_strength=0.0)
    assert torch.equal(picture(off), picture(model))


def test_the_net_is_loaded_with_the_model(sdxl, monkeypatch):
    net = identity_net()
    model = with_instantid(sdxl, monkeypatch, control_net=net)
    assert [one.model for one in model.get_additional_models()] == [net.control_model]


def test_noise_in_the_embedding_of_nobody(sdxl, monkeypatch):
    """Of its own generator: the global one stays as it is, and each run has the same."""
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    noisy = [with_instantid(sdxl, monkeypatch, negative_noise=0.35, control_net=None) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(picture(noisy[0]), picture(noisy[1]))
    plain, plain_calls = recording(with_instantid(sdxl, monkeypatch, control_net=None))
    noisy, calls = recording(noisy[0])
    picture(plain, steps=1), picture(noisy, steps=1)
    assert torch.equal(calls.calls[0].cond, plain_calls.calls[0].cond)
    assert differ(calls.calls[0].uncond, plain_calls.calls[0].uncond) > 1e-3


def test_views_of_one_person(sdxl, monkeypatch):
    """One face twice is one face on average; side by side the Resampler reads two."""
    twice = references_of(("a woman",), [2])
    same = [face(draw(512, seed=1))]
    inputs = {"control_net": None}
    once = picture(with_instantid(sdxl, monkeypatch, faces=same, references=two_people()[:1], **inputs))
    average = picture(with_instantid(sdxl, monkeypatch, faces=same * 2, references=twice, **inputs))
    joint = picture(with_instantid(sdxl, monkeypatch, faces=same * 2, references=twice, views="joint", **inputs))
    assert differ(average, once) < 1e-4 and differ(joint, once) > 1e-4


def test_a_face_outside_of_its_region_is_said(sdxl, monkeypatch, caplog):
    region = half_mask()
    faces = [face(x=3, y=8, side=4), face(x=4, y=8, side=4)]
    with_instantid(sdxl, monkeypatch, faces=faces, references=two_people(regions=[region, 1 - region]))
    assert caplog.text.count("lies outside of its region") == 1 and 'reference 2 ("man")' in caplog.text


def test_a_pose_picture_of_another_aspect_is_said(sdxl, monkeypatch, caplog):
    model = with_instantid(sdxl, monkeypatch)
    picture(model, latent=(1, 4, 8, 12), steps=1)
    assert "stretched over this one of 96x64" in caplog.text


# what is refused


def other_nets(sdxl):
    lora = comfy.controlnet.ControlLora({}, global_average_pooling=False)
    adapter = comfy.controlnet.T2IAdapter(torch.nn.Identity(), 3, 8, "nearest-exact")
    return {
        "lora": (lora, "ControlLora of another kind"),
        "t2i": (adapter, "T2IAdapter of another kind"),
        "sd15": (controlnet(tiny_model("sd15")), "reads a context of 32, it must read 48"),
        "nothing": (object(), "object of another kind"),
    }


@pytest.mark.parametrize("kind", ["lora", "t2i", "sd15", "nothing"])
def test_other_controlnets_are_refused(sdxl, monkeypatch, kind):
    net, said = other_nets(sdxl)[kind]
    with pytest.raises(ValueError, match="IdentityNet is the ControlNet that comes with InstantID") as caught:
        with_instantid(sdxl, monkeypatch, control_net=net)
    assert said in str(caught.value)


def test_nets_of_other_pictures_are_refused(sdxl, monkeypatch):
    net = identity_net()
    net.control_model.input_hint_block[0] = torch.nn.Conv2d(4, 16, 3)
    with pytest.raises(ValueError, match="pictures of 4 channels, it must take 3"):
        with_instantid(sdxl, monkeypatch, control_net=net)


def test_files_of_other_nodes_are_refused(sdxl, monkeypatch):
    faceid = adapter_of_case("faceid", "weights_sdxl_faceid")
    with pytest.raises(ValueError, match="is a FaceID file; use the node FaceID.*InstantID needs"):
        with_instantid(sdxl, monkeypatch, adapter=faceid)
    weights, _ = case("instantid/weights")
    from pack.nodes.image_adapters.image_adapter import adapter_from

    named = adapter_from(weights, "instantid/ip-adapter.bin")
    with pytest.raises(ValueError, match="is an InstantID file; use the node InstantID.*FaceID needs"):
        with_faceid(sdxl, monkeypatch, adapter=named)
    portrait = adapter_from(weights, "ip-adapter-faceid-portrait_sdxl_unnorm.bin")
    with pytest.raises(ValueError, match="use the node FaceID"):
        with_instantid(sdxl, monkeypatch, adapter=portrait)
    assert torch.isfinite(picture(with_faceid(sdxl, monkeypatch, adapter=portrait), steps=1)).all()


def test_another_family_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="choose an adapter for"):
        with_instantid(tiny_model("sd15"), monkeypatch)


def test_fewer_faces_than_people(sdxl, monkeypatch):
    with pytest.raises(ValueError, match=r"pose_image shows 1 face\(s\), but 2 references are connected"):
        with_instantid(sdxl, monkeypatch, pose_image=torch.rand(1, 64, 64, 3))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"scale": float("nan")}, "scale is nan"),
        ({"control_strength": float("inf")}, "control_strength is inf"),
        ({"views": "all"}, "views is"),
        ({"control_passes": "none"}, "control_passes is"),
        ({"negative_noise": -0.1}, "negative_noise is -0.1"),
        ({"control_start": 0.6, "control_end": 0.2}, "control_start 0.6 is after control_end 0.2"),
    ],
)
def test_values_that_are_refused(sdxl, monkeypatch, inputs, said):
    with pytest.raises(ValueError, match=said):
        with_instantid(sdxl, monkeypatch, **inputs)


def test_the_wrong_recognition_network_is_said(sdxl, monkeypatch, caplog):
    give_faces(monkeypatch, [face()])
    inputs = {"adapter": adapter_of_case("instantid", "weights"), "references": two_people(), "clip": TinyWords(sdxl)}
    execute(InstantID, model=sdxl, face_analysis=SimpleNamespace(trained="w600k_r50"), **inputs)
    assert "was trained with antelopev2 (glintr100), these embeddings are from w600k_r50" in caplog.text
