"""Nodes of people by property: off is nothing, nothing leaks, every size, batch and dtype works, nodes join."""

import gc

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from support.compare import differ
from support.controlnets import identity_net
from support.faces import face
from support.identity import adapter_of_case, two_people, with_faceid, with_instantid, with_storymaker
from support.image_prompts import GreyVision, references_of, with_pictures
from support.models import execute, recording, tiny_model
from support.references import draw, half_mask, picture
from support.thorough import few_of, few_rows_of

from pack.nodes.host.run import Run
from pack.nodes.image_prompts.mip_adapter_node import MIPMaps

PEOPLE = {"faceid": with_faceid, "instantid": with_instantid, "storymaker": with_storymaker}
KINDS = {"faceid": "sd15", "instantid": "sdxl", "storymaker": "sdxl"}
ADAPTERS = {
    "faceid": ("faceid", "weights_sd15_faceid"),
    "instantid": ("instantid", "weights"),
    "storymaker": ("storymaker", "weights"),
}
each = pytest.mark.parametrize("name", PEOPLE)


@pytest.fixture(scope="module")
def models():
    made = {}

    def model(kind):
        if kind not in made:
            made[kind] = tiny_model(kind)
        return made[kind]

    return model


@pytest.fixture
def people(models, monkeypatch):
    """people(name, ...): the MODEL after the node of this name; people.bare(name): the MODEL before it."""

    def patched(name, model=None, **inputs):
        return PEOPLE[name](model or models(KINDS[name]), monkeypatch, **inputs)

    patched.bare = lambda name: models(KINDS[name])
    return patched


@each
@pytest.mark.parametrize("inputs", [{"references": ()}, {"references": None}], ids=["none", "None"])
def test_without_references_the_model_passes_through(people, name, inputs, caplog):
    assert people(name, **inputs) is people.bare(name)
    assert "no references are connected" in caplog.text


@each
def test_nothing_at_all_is_the_model_itself(people, name):
    off = {"scale": 0.0} | ({"lora_strength": 0.0} if name != "instantid" else {"control_strength": 0.0})
    assert people(name, **off) is people.bare(name)


@each
def test_the_model_that_came_in_stays_as_it_was(people, name):
    model = people.bare(name)
    before = picture(model)
    state = {key: t.clone() for key, t in model.model.diffusion_model.state_dict().items()}
    patched = people(name)
    assert differ(picture(patched), before) > 1e-3
    assert torch.equal(picture(model), before) and not model.patches
    assert all(torch.equal(t, state[key]) for key, t in model.model.diffusion_model.state_dict().items())


@each
def test_outside_the_window_nothing_is_computed(people, name):
    off = {"lora_strength": 0.0} if name != "instantid" else {"control_end": 0.0}
    patched, calls = recording(people(name, start_percent=0.4, **off))
    bare, bare_calls = recording(people.bare(name))
    picture(bare, steps=4)
    picture(patched, steps=4)
    assert torch.equal(calls.calls[0].cond, bare_calls.calls[0].cond)
    assert not torch.equal(calls.calls[-1].cond, bare_calls.calls[-1].cond)


SIZES = [(size, batch) for size in ((15, 13), (17, 24), (8, 8)) for batch in (1, 3)]


@each
@pytest.mark.parametrize(("size", "batch"), few_rows_of(SIZES, ((15, 13), 3)))
def test_sizes_and_batches(people, name, size, batch):
    # each picture of a batch is as alone
    noise = draw(batch, 4, *size, seed=3)
    model = people(name, references=two_people(regions=[half_mask(), 1 - half_mask()]))
    whole = picture(model, latent=tuple(noise.shape), noise=noise, steps=2)
    assert torch.isfinite(whole).all()
    alone = picture(model, latent=(1, 4, *size), noise=noise[-1:], steps=2)
    assert differ(whole[-1:], alone) < 1e-3


@each
@pytest.mark.parametrize("dtype", few_of([torch.float16, torch.bfloat16], torch.float16), ids=str)
def test_half_precision(people, name, dtype):
    """The technique shows through the rounding, by far."""
    outputs = {}
    for form, patch in (("bare", lambda name, model: model), ("patched", people)):
        for d in (torch.float32, dtype):
            model, calls = recording(patch(name, model=tiny_model(KINDS[name], dtype=d)))
            picture(model, steps=1)
            outputs[form, d] = calls.calls[0].cond.float()
    assert outputs["patched", dtype].isfinite().all()
    effect = (outputs["patched", torch.float32] - outputs["bare", torch.float32]).norm()
    assert (outputs["patched", dtype] - outputs["patched", torch.float32]).norm() < 0.3 * effect


@each
def test_cfg_1_has_conditional_rows_only(people, name):
    patched, calls = recording(people(name))
    picture(patched, cfg=1.0, steps=2)
    assert all(call.uncond is None for call in calls.calls)


@each
def test_halves_in_separate_calls_are_as_together(people, name):
    model = people(name)

    def split(executor, base, conds, *args):
        return [
            executor(base, [c if i == j else None for j, c in enumerate(conds)], *args)[i] for i in range(len(conds))
        ]

    apart = model.clone()
    apart.add_wrapper_with_key("calc_cond_batch", "split", split)
    assert differ(picture(apart, steps=1), picture(model, steps=1)) < 1e-3


@each
def test_an_interrupt_leaves_nothing(people, name):
    model = people(name)
    before = picture(model, steps=2)
    interrupted = model.clone()

    def stop(executor, *args, **kwargs):
        raise comfy.model_management.InterruptProcessingException

    interrupted.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "stop", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        picture(interrupted, steps=2)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Run)]
    assert torch.equal(picture(model, steps=2), before)


@pytest.mark.slow
@each
def test_fifty_runs_leave_nothing(people, name):
    model = people(name)

    def tensors():
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    picture(model, steps=1)
    before = tensors()
    for _ in range(50):
        picture(model, steps=1)
    assert tensors() <= before + 8 and not [one for one in gc.get_objects() if isinstance(one, Run)]


@each
def test_maps_show_the_people(people, name):
    model = people(name, references=two_people(regions=[half_mask(), 1 - half_mask()]))
    samples = picture(model, steps=2)
    (maps,) = execute(MIPMaps, model=model, samples={"samples": samples})
    assert maps.shape[0] == 2
    # each on its own half
    left, right = maps[:, :64].split(maps.shape[2] // 2, 2)
    assert left[0].mean() > right[0].mean() and right[1].mean() > left[1].mean()


@each
def test_beside_mip_adapter_in_any_order(people, name):
    """Both add to the text's attention."""
    model = people.bare(name)
    one = people(name, model=with_pictures(model, clip_vision=GreyVision()))
    other = with_pictures(people(name), clip_vision=GreyVision())
    assert differ(picture(one), picture(other)) < 1e-4
    assert differ(picture(one), picture(people(name))) > 1e-3


@each
def test_two_nodes_are_one_chain(people, name, monkeypatch):
    adapter = {"adapter": adapter_of_case(*ADAPTERS[name])}
    adapter |= {"control_net": identity_net()} if name == "instantid" else {}
    faces = [face(draw(512, seed=i)) for i in (1, 2)]
    chain = two_people()
    both = people(name, references=chain, faces=faces, **adapter)
    first = people(name, references=chain[:1], faces=faces[:1], **adapter)
    second = people(name, model=first, references=chain[1:], faces=faces[1:], **adapter)
    assert differ(picture(second), picture(both)) < 1e-4


def test_another_family_is_refused(models, monkeypatch):
    with pytest.raises(ValueError, match="is made for .*48.*; choose an adapter for"):
        with_faceid(models("sd15"), monkeypatch, adapter=adapter_of_case("faceid", "weights_sdxl_faceid"))


def test_files_of_others_are_refused(models, monkeypatch):
    with pytest.raises(ValueError, match="use the node MIP-Adapter"):
        with_faceid(models("sd15"), monkeypatch, adapter=adapter_of_case("mip_adapter", "weights_sd15_plus"))
    with pytest.raises(ValueError, match="use the node FaceID"):
        with_pictures(models("sd15"), adapter=adapter_of_case("faceid", "weights_sd15_plus"))


def test_words_are_needed_for_several(models, monkeypatch):
    nameless = references_of(("a woman", ""))
    with pytest.raises(ValueError, match="reference 2 has no word"):
        with_faceid(models("sd15"), monkeypatch, references=nameless)
    assert torch.isfinite(picture(with_faceid(models("sd15"), monkeypatch, references=nameless, merge="joint"))).all()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"scale": float("nan")}, "scale is nan"),
        ({"structure": float("inf")}, "structure is inf"),
        ({"merge": "best"}, "merge is"),
        ({"version": "3"}, "version is"),
        ({"merge_power": -1.0}, "merge_power is -1"),
        ({"start_percent": 0.5, "end_percent": 0.2}, "is after end_percent"),
    ],
)
def test_values_that_are_refused(models, monkeypatch, inputs, said):
    with pytest.raises(ValueError, match=said):
        with_faceid(models("sd15"), monkeypatch, **inputs)


def test_a_plus_file_needs_its_encoder(models, monkeypatch):
    plus = adapter_of_case("faceid", "weights_sd15_plus")
    with pytest.raises(ValueError, match="clip_vision is empty, but weights_sd15_plus.safetensors needs"):
        with_faceid(models("sd15"), monkeypatch, adapter=plus)
    with pytest.raises(ValueError, match="expects penultimate_hidden_states of 32"):
        with_faceid(models("sd15"), monkeypatch, adapter=plus, clip_vision=GreyVision())


def test_the_lora_alone_is_weights_alone(people):
    """With scale 0 nothing joins the cross-attention."""
    only = people("faceid", scale=0.0)
    assert only.patches and not only.get_wrappers(WrappersMP.DIFFUSION_MODEL, "personalization")
    assert differ(picture(only), picture(people.bare("faceid"))) > 1e-3


def test_several_pictures_of_a_person_are_averaged(people):
    """FaceID averages tokens: one picture twice is one picture."""
    one = two_people()[:1]
    twice = references_of(("a woman",), [2])
    same = [face(draw(512, seed=1))]
    assert (
        differ(
            picture(people("faceid", references=twice, faces=same * 2)),
            picture(people("faceid", references=one, faces=same)),
        )
        < 1e-3
    )


def test_faceid_reads_lengths_of_one(people):
    """Embeddings count by their direction alone."""
    e = draw(512, seed=1)
    one, other = (people("faceid", faces=[face(k * e)] * 2) for k in (1.0, 20.0))
    assert differ(picture(one, steps=1), picture(other, steps=1)) < 1e-3


def test_people_with_unequal_numbers_of_pictures(models, monkeypatch):
    """A portrait file reads all pictures of a person at once: one has three, the other one."""
    portrait = adapter_of_case("faceid", "weights_sd15_portrait")
    faces = [face(draw(512, seed=i)) for i in range(4)]
    left, right = half_mask(), 1 - half_mask()
    chain = references_of(("a woman", "man"), [3, 1], regions=[left, right])
    both = picture(with_faceid(models("sd15"), monkeypatch, adapter=portrait, references=chain, faces=faces))
    assert torch.isfinite(both).all()
    swapped = with_faceid(
        models("sd15"), monkeypatch, adapter=portrait, references=chain[::-1], faces=faces[3:] + faces[:3]
    )
    assert differ(picture(swapped), both) < 1e-4
