"""Concept Conductor beside other techniques and packs: whose rows see what."""

import comfy.model_management as mm
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from composition import foreign
from support.compare import differ
from support.concepts import both_kinds, conducted, dora, random_concepts, random_lora, strip, with_lora
from support.controlnets import controlnet
from support.image_prompts import with_pictures
from support.models import conditioning, execute, recording, sample, tiny_model
from support.references import draw, prompt, references, with_references
from support.thorough import few_of

from nodes import ConditioningSetArea, ControlNetApplyAdvanced
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.attach import attach
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.text_contexts.context_router import ContextRouter

# The host patches weights in single precision.
PATCHED = 1e-5


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15", dtype=torch.float64)


def evaluation(model, positive=None, negative=None, **kwargs):
    """What the UNet gives in one step: the conditional row, then the other."""
    model, recorder = recording(model)
    positive = prompt(model, 100) if positive is None else positive
    sample(model, positive, prompt(model, 200) if negative is None else negative, steps=1, **kwargs)
    halves = [getattr(call, half) for half in ("cond", "uncond") for call in recorder.calls]
    return torch.cat([rows for rows in halves if rows is not None])


class Expectation:
    """A slow Concept Conductor of one step: each path alone, its attention outputs noted, then the picture's own.

    Torch hooks on the UNet's attentions; the host patches each concept's weights. No code of the pack.
    """

    def __init__(self, chain, latent=(8, 8)):
        self.chain, self.latent = chain, latent

    def __call__(self, model, positive=None, negative=None, patched=None, apply=lambda *conds: conds):
        """model: what the picture's rows run with; patched(concept's MODEL): what its rows run with."""
        noted = []
        for concept in self.chain:
            kept = {}
            conds = apply(concept.positive, concept.negative)
            self._run(patched(concept.model) if patched else concept.model, *conds, self._note(kept))
            noted.append(kept)
        conds = positive or prompt(model, 100), negative or prompt(model, 200)
        return self._run(model, *apply(*conds), self._blend(noted))

    def _run(self, model, positive, negative, hook):
        unet = model.model.diffusion_model
        decoder = [m for m in unet.output_blocks.modules() if isinstance(m, BasicTransformerBlock)]
        attentions = [attention for block in decoder for attention in (block.attn1, block.attn2)]
        # the projection runs also where another pack's attention stands
        handles = [a.to_out.register_forward_hook(hook(index)) for index, a in enumerate(attentions)]
        try:
            return evaluation(model, positive, negative)
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, kept):
        def hook(index):
            def note(layer, args, out):
                kept.setdefault(index, out.clone())

            return note

        return hook

    def _blend(self, noted):
        def hook(index):
            def blend(layer, args, out):
                side = round(out.shape[1] ** 0.5)
                if len(out) != len(noted[0][index]):
                    # a pass over references
                    return out
                out = out.clone()
                for concept, kept in zip(self.chain, noted):
                    mask = torch.nn.functional.interpolate(
                        concept.mask[None, None], size=(side, side), mode="bilinear", antialias=True
                    )
                    inside = mask.flatten() > 0.5
                    out[:, inside] = kept[index][:, inside]
                return out

            return blend

        return hook


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_as_the_paths_alone(kind):
    model = tiny_model(kind, dtype=torch.float64)
    chain = random_concepts(model)
    assert differ(evaluation(conducted(model, chain)), Expectation(chain)(model)) < PATCHED


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_controlnet_sees_each_path_s_own_prompt(kind):
    model = tiny_model(kind, dtype=torch.float64)
    chain = random_concepts(model)
    net = controlnet(model)
    hint = draw(1, 64, 64, 3, seed=78).sigmoid()

    def controlled(*texts):
        return ControlNetApplyAdvanced().apply_controlnet(*texts, net, hint, 0.5, 0.0, 1.0)

    both = controlled(prompt(model, 100), prompt(model, 200))
    ours = evaluation(conducted(model, chain), *both)
    assert differ(ours, evaluation(conducted(model, chain))) > 1e-2
    # the ControlNet computes in single precision
    assert differ(ours, Expectation(chain)(model, apply=controlled)) < 1e-3
    # and so it is where the concepts run ahead
    other = conducted(model, chain)
    other.set_model_attn1_output_patch(lambda n, options: n)
    assert differ(evaluation(other, *both), ours) < 1e-3


@pytest.mark.parametrize("order", ["references first", "concepts first"])
def test_references_belong_to_the_pictures_rows(model, order):
    """MRSA acts on the picture's rows as it does alone, and the concepts' rows know nothing of it."""
    chain = random_concepts(model, 1)
    pictures = references(1)
    if order == "references first":
        both = conducted(with_references(model, pictures, cache_mb=0, blocks="all"), chain)
    else:
        both = with_references(conducted(model, chain), pictures, cache_mb=0, blocks="all")
    expected = Expectation(chain)(with_references(model, pictures, cache_mb=0, blocks="all"))
    ours = evaluation(both)
    # the references' noise is drawn in single precision, and their keys are computed once per run
    assert differ(ours, expected) < PATCHED
    assert differ(ours, evaluation(conducted(model, chain))) > 1e-3


@pytest.mark.parametrize("order", ["pictures first", "concepts first"])
def test_image_prompts_belong_to_the_pictures_rows(order):
    """MIP-Adapter acts on the picture's rows as it does alone, and the concepts' rows know nothing of it."""
    model = tiny_model("sd15")
    chain = random_concepts(model, 1)
    if order == "pictures first":
        both = conducted(with_pictures(model), chain)
    else:
        both = with_pictures(conducted(model, chain))
    ours = evaluation(both)
    assert differ(ours, Expectation(chain)(with_pictures(model))) < 1e-3
    assert differ(ours, evaluation(conducted(model, chain))) > 1e-2


@pytest.mark.parametrize(
    "patch",
    [
        foreign.by_setter("set_model_attn1_replace", foreign.squashed, "output", 8),
        foreign.by_setter("set_model_attn1_patch", foreign.longer),
        foreign.by_setter("set_model_attn2_patch", lambda n, k, v, options: (n, 1.3 * k, 0.7 * v)),
        foreign.override(lambda f, q, k, v, heads, **kwargs: 1.1 * f(q, k, v, heads, **kwargs)),
        foreign.FREEU,
    ],
    ids=["replace", "longer context", "hypernetwork", "override", "FreeU"],
)
def test_patches_of_others_act_on_the_pictures_rows(model, patch):
    chain = random_concepts(model)
    expected = Expectation(chain)(patch(model))
    for patched in (patch(conducted(model, chain)), conducted(patch(model), chain)):
        assert differ(evaluation(patched), expected) < PATCHED


PACKS = {
    "PAG": foreign.PAG,
    "SAG": foreign.SAG,
    "HyperTile": foreign.HYPERTILE,
    "ToMe": foreign.TOME,
    "Downscale": foreign.DOWNSCALE,
}


@pytest.mark.parametrize("patch", few_of(PACKS.values(), foreign.SAG), ids=PACKS)
def test_packs_beside_us_in_either_order(patch):
    model = tiny_model("sd15")
    for patched in (patch(conducted(model)), conducted(patch(model))):
        out = sample(patched, prompt(model, 100), prompt(model, 200), latent=(1, 4, 16, 16), steps=2)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize(("factor", "end"), [(2.0, 0.35), (2.0, 1.0), (1.5, 1.0)])
def test_refinement_beside_other_sizes_inside_the_unet(factor, end):
    """Maps on other grids than the plain UNet's are not looked at; those of later steps are."""
    patched = conducted(tiny_model("sd15"), refine_start=0.0, refine_end=1.0, refine_interval=0.1)
    shrink = foreign.by_node(PatchModelAddDownscale, 2, factor, 0.0, end, True, "bicubic", "bicubic")
    shrunk = shrink(patched)
    out = sample(shrunk, prompt(shrunk, 100), prompt(shrunk, 200), steps=4)
    assert torch.isfinite(out).all()


def test_parts_of_the_picture_are_left_alone(model, caplog):
    """A pack that cuts the picture into tiles: nobody knows where a tile lies."""

    def tiled(apply, args):
        left, right = (
            apply(part, args["timestep"], **args["c"]) for part in args["input"].split(args["input"].shape[-1] // 2, -1)
        )
        return torch.cat([left, right], -1)

    def cut(model):
        clone = model.clone()
        clone.set_model_unet_function_wrapper(tiled)
        return clone

    texts = prompt(model, 100), prompt(model, 200)
    assert torch.equal(sample(cut(conducted(model)), *texts, steps=1), sample(cut(model), *texts, steps=1))
    assert "another node samples parts of the picture" in caplog.text


@pytest.mark.parametrize("alone", [False, True])
def test_prompts_of_lengths_that_the_host_would_not_batch(model, alone):
    """A concept's rows read its own prompt of 3 tokens and the picture's negative one of 5; repeated to 15, both are
    the same to an attention.
    """

    def chain(repeats):
        own = [[[tensor.repeat(1, repeats, 1), values]] for ((tensor, values),) in custom]
        return random_concepts(model, positive=own, negative=[None, None])

    custom = prompt(model, 300, 3), prompt(model, 301, 3)
    texts = prompt(model, 100, 5), prompt(model, 200, 5)
    patch = (
        foreign.override(lambda function, *args, **kwargs: function(*args, **kwargs)) if alone else torch.nn.Identity()
    )
    ours = evaluation(patch(conducted(model, chain(1))), *texts)
    repeated = [[[tensor.repeat(1, 3, 1), values]] for ((tensor, values),) in texts]
    assert differ(ours, evaluation(patch(conducted(model, chain(5))), *repeated)) < PATCHED


def test_negative_prompt_weights_of_concepts(model):
    """Two rows for each token, a key and a value, which a patch of the MODEL takes apart; concepts run without it."""

    def paired(conditioning, negative):
        ((tensor, values),) = conditioning
        rows = tensor.repeat_interleave(2, 1)
        rows[:, 2 * negative + 1] *= -1
        return [[rows, values]]

    texts = [paired(prompt(model, seed, 77), torch.tensor([3, 5])) for seed in range(300, 306)]
    apart = foreign.by_setter("set_model_attn2_patch", lambda n, k, v, options: (n, k[:, 0::2], v[:, 1::2]))
    for negatives in (texts[2:4], [None, None]):
        chain = random_concepts(model, positive=texts[:2], negative=negatives)
        wanted = random_concepts(model, positive=texts[:2], negative=[own or texts[5] for own in negatives])
        expected = Expectation(wanted)(apart(model), *texts[4:], patched=apart)
        assert differ(evaluation(apart(conducted(model, chain)), *texts[4:]), expected) < PATCHED
        # and the signs count
        plain = [[[tensor.abs() * tensor[:, 0::2].sign().repeat_interleave(2, 1), {}]] for ((tensor, _),) in texts[:2]]
        other = random_concepts(model, positive=plain, negative=negatives)
        assert differ(evaluation(apart(conducted(model, other)), *texts[4:]), expected) > 100 * PATCHED


def test_what_a_concept_does_not_take_is_said(model, caplog):
    (area,) = ConditioningSetArea().append(prompt(model, 300), 32, 32, 0, 0, 1.0)
    conducted(model, random_concepts(model, 1))
    assert not caplog.text
    conducted(model, random_concepts(model, 1, positive=[area + prompt(model, 301)]))
    assert "the prompt of concept 1 has 2 combined prompts (only the first is used), an area" in caplog.text


def test_an_ed_lora_without_its_words_is_said(model, caplog):
    taught = attach(model, ContextRouter(("ED-LoRA",)))
    layers = torch.cat([prompt(model, seed)[0][0] for seed in range(16)])

    def chain(positive):
        return execute(AddConcept, model=taught, positive=positive, mask=strip(0, 2))[0]

    conducted(model, chain([[layers[:1], {"personalization_layers": layers}]]))
    conducted(taught, chain(prompt(model, 300)))
    assert not caplog.text
    conducted(model, chain(prompt(model, 300)))
    assert "its prompt contains none of the words that its model has from Load ED-LoRA" in caplog.text


def test_a_concept_without_a_negative_reads_the_samplers_own_at_each_layer(model):
    """As if the very same negative were connected to it."""
    taught = attach(model, ContextRouter(("ED-LoRA",)))
    layers = draw(16, 7, 32, seed=9)
    negative = conditioning(layers[:1], **{LAYERS: layers, PLAIN: layers[:1]})
    chains = (random_concepts(model, 1, negative=[own]) for own in (None, negative))
    left_out, connected = (sample(conducted(taught, chain), prompt(model, 100), negative, steps=1) for chain in chains)
    assert differ(left_out, connected) < 1e-4


def test_areas_are_refused(model):
    (area,) = ConditioningSetArea().append(prompt(model, 100), 32, 32, 0, 0, 1.0)
    with pytest.raises(ValueError, match="has an area"):
        evaluation(conducted(model), area)


def test_several_prompts_of_the_picture(model):
    """Combined prompts are averaged by the host; each of them is conducted."""
    patched = conducted(model)
    one = evaluation(patched, prompt(model, 100))
    two = sample(patched, prompt(model, 100) * 2, prompt(model, 200), steps=1)
    assert differ(two, sample(patched, prompt(model, 100), prompt(model, 200), steps=1)) < 1e-6
    assert torch.isfinite(one).all()


def test_global_loras_act_on_all_paths(model):
    """What base and concept share is in the base; the concept's delta adds on top."""
    style = random_lora(model, 7)
    styled = with_lora(model, style, 0.5)
    chain = random_concepts(styled)
    assert differ(evaluation(conducted(styled, chain)), Expectation(chain)(styled)) < PATCHED
    assert differ(evaluation(conducted(styled, chain)), evaluation(conducted(model, random_concepts(model)))) > 1e-3


@pytest.mark.parametrize("loaded", [False, True])
def test_adapters_that_need_the_weights(model, loaded):
    """A DoRA runs in a forward of its own with its weights, between ordinary LoRAs; nothing of it stays."""
    before = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    base = with_lora(model, random_lora(model, 7), 0.5) if loaded else model
    chain = random_concepts(base, 1)
    (chain,) = execute(
        AddConcept,
        model=with_lora(base, dora(random_lora(base, 5)), 1.0),
        positive=prompt(model, 305),
        negative=prompt(model, 405),
        mask=strip(1, 2),
        concepts=chain,
    )
    expected = Expectation(chain)(base)
    assert differ(evaluation(conducted(base, chain)), expected) < PATCHED
    patched = conducted(base, chain, layout=True, guidance_weight=0.01)
    assert torch.isfinite(sample(patched, prompt(model, 100), prompt(model, 200))).all()
    mm.unload_all_models()
    for key, weight in model.model.diffusion_model.state_dict().items():
        assert torch.equal(weight, before[key]), key


def test_loras_behind_the_conductor_act_on_all_paths(model):
    """Also on those that need the weights."""
    style = random_lora(model, 7)

    styled = with_lora(model, style, 0.5)
    before = evaluation(conducted(styled, both_kinds(styled)))
    behind = evaluation(with_lora(conducted(model, both_kinds(model)), style, 0.5))
    assert differ(behind, before) < PATCHED
