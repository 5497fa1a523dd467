"""Perfusion by property: off is nothing, several concepts share no direction, others' patches act as they should."""

import math

import pytest
import torch
from support.clips import encoded, tiny_clip
from support.compare import differ
from support.concepts import conducted, random_concepts, random_lora, with_lora
from support.models import execute, sample, tiny_model
from support.references import prompt
from support.word_files import CASES, concept_clip, embeddings, put  # noqa: F401 (fixture)

from pack.nodes.files.safe_files import read_contents
from pack.nodes.host.attach import techniques_of
from pack.nodes.text_contexts.perfusion_node import PerfusionLoader

FILE, RANK1 = "perfusion_teddy.ckpt", "perfusion_rank1.pt"


def load(embeddings, file=FILE, model=None, clip=None, **inputs):  # noqa: F811
    if not (embeddings / file).exists():
        put(embeddings, file)
    inputs = {"word": "<c>", **inputs}
    return execute(
        PerfusionLoader, model=model or tiny_model(), clip=clip or concept_clip(), perfusion_file=file, **inputs
    )


def edited(embeddings, change, file=FILE):  # noqa: F811
    contents = read_contents(CASES / file)
    change(contents)
    torch.save(contents, embeddings / "edited.pt")
    return "edited.pt"


def run(model, clip, text="11 <c> 25", **settings):
    return sample(model, encoded(clip, text), encoded(clip, "40"), steps=2, **settings)


def test_strength_0_is_the_plain_prompt(embeddings):  # noqa: F811
    base = tiny_model()
    for lock in ("local", "global"):
        model, clip, _ = load(embeddings, model=base, strength=0.0, key_lock=lock)
        assert techniques_of(model) == ()
        assert torch.equal(run(model, clip), run(base, clip))


def test_strength_is_linear_in_keys_and_values(embeddings):  # noqa: F811
    """Small strengths move the result in proportion."""
    base = tiny_model()
    plain = run(base, load(embeddings, model=base)[1])
    moved = [run(*load(embeddings, model=base, strength=m)[:2]) - plain for m in (0.001, 0.002)]
    assert differ(moved[1], 2 * moved[0]) < 0.05


def test_model_and_clip_stay_as_they_were(embeddings):  # noqa: F811
    base, clip = tiny_model(), concept_clip()
    before = {name: t.clone() for name, t in base.model.state_dict().items()}
    model, taught, _ = load(embeddings, model=base, clip=clip)
    run(model, taught)
    assert all(torch.equal(t, before[name]) for name, t in base.model.state_dict().items())
    assert not base.wrappers and not model.patches
    assert torch.equal(encoded(clip, "11 25")[0][0], encoded(taught, "11 25")[0][0])


@pytest.mark.parametrize("settings", [{"latent": (2, 4, 9, 13)}, {"cfg": 1.0}, {"sampler": "heun"}])
def test_settings_of_the_sampler(settings, embeddings):  # noqa: F811
    base = tiny_model()
    model, clip, _ = load(embeddings, model=base)
    for text in ("11 <c> 25", "11 (<c>:1.3) 25", "11 <c>" + " 40" * 90):
        found = run(model, clip, text, **settings)
        assert torch.isfinite(found).all() and differ(found, run(base, clip, text, **settings)) > 1e-3


def test_pictures_of_a_batch_are_edited_alike(embeddings):  # noqa: F811
    model, clip, _ = load(embeddings)
    noise = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    one, two = run(model, clip, latent=(2, 4, 8, 8), noise=noise)
    assert differ(one, two) < 1e-5


def test_several_concepts_in_a_chain(embeddings):  # noqa: F811
    """Of both layouts, in either order the same; a concept twice counts its direction once."""

    def rank1(contents):
        contents["C_inv"] = read_contents(CASES / FILE)["C_inv"]

    other = edited(embeddings, rank1, RANK1)
    base, clip = tiny_model(), concept_clip()
    one, clip, _ = load(embeddings, model=base, clip=clip)
    both, clip, _ = load(embeddings, other, one, clip, word="<d>")
    turned = load(embeddings, FILE, load(embeddings, other, base, word="<d>")[0])[0]
    found = run(both, clip, "11 <c> <d>")
    assert differ(found, run(turned, clip, "11 <c> <d>")) < 1e-4
    assert differ(found, run(one, clip, "11 <c> <d>")) > 1e-3
    twice = load(embeddings, model=one)[0]
    assert torch.isfinite(run(twice, clip)).all()


def test_weights_of_a_lora_act_on_what_is_edited(embeddings):  # noqa: F811
    base = tiny_model()
    lora = random_lora(base, 3)
    before = load(embeddings, model=with_lora(base, lora, 1.0))
    behind = with_lora(load(embeddings, model=base)[0], lora, 1.0)
    found = run(*before[:2])
    assert differ(found, run(behind, before[1])) < 1e-5
    assert differ(found, run(load(embeddings, model=base)[0], before[1])) > 1e-3


def test_half_precision(embeddings):  # noqa: F811
    model, clip, _ = load(embeddings)
    half = load(embeddings, model=tiny_model(dtype=torch.float16))[0]
    assert differ(run(half, clip), run(model, clip)) < 0.05


def test_concepts_of_a_conductor_are_not_edited(embeddings):  # noqa: F811
    """The main MODEL's concept acts on the picture's rows; under a mask of everything only the subject shows."""
    base = tiny_model()
    model, clip, _ = load(embeddings, model=base)
    chain = random_concepts(base, 2)
    found = [sample(conducted(one, chain), prompt(base, 100), prompt(base, 200), steps=2) for one in (model, base)]
    assert torch.isfinite(found[0]).all() and differ(*found) > 1e-4


def refused(embeddings, says, **inputs):  # noqa: F811
    with pytest.raises(ValueError, match=says) as caught:
        load(embeddings, **inputs)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit(embeddings):  # noqa: F811
    for name, value in {"strength": math.nan, "beta": math.inf, "tau": math.nan}.items():
        refused(embeddings, f"{name} is {value}; enter a number", **{name: value})
    refused(embeddings, "tau is 0.0; enter a number from 0.01 to 1.0", tau=0.0)
    refused(embeddings, "Perfusion files are for SD1.x and SD2.x; this model is SDXL",
            model=tiny_model("sdxl"), clip=tiny_clip("sdxl"))  # fmt: skip
    refused(embeddings, "has C_inv as 32 x 32, the prompts of this model are 1024", model=tiny_model("sd2", seed=1))
    refused(embeddings, "names no class; enter its class word", file=RANK1, key_lock="global")
    name = "output_blocks.4.1.transformer_blocks.0.attn2.to_v.target_output"
    lacking = edited(embeddings, lambda contents: contents["target_output"].pop(name))
    refused(embeddings, f"lacks {name}; choose a file for this checkpoint's family", file=lacking)
    wide = edited(embeddings, lambda contents: contents["target_output"].update({name: torch.ones(77, 40)}))
    refused(
        embeddings, "has outputs of 40 and inputs of 32 for output_blocks.4.1.*, the model's are 64 and 32", file=wide
    )
    short = edited(embeddings, lambda contents: contents["key_value_params"].pop(), RANK1)
    refused(
        embeddings, "has 31 pairs of inputs and outputs, the model has 16 cross-attentions and needs 32", file=short
    )
    order = edited(embeddings, lambda contents: contents["key_value_params"].reverse(), RANK1)
    refused(embeddings, "has outputs that are .* wide, the model's keys are", file=order)
    words = put(embeddings, "bundle_assets.bin")
    refused(embeddings, "is a file of learned words, not a Perfusion file; load it with Load Concept Words", file=words)


@pytest.mark.parametrize(
    ("file", "says", "change"),
    [
        (FILE, "lacks target_input or its word", lambda c: c["embedding"].update(string_to_param={"*": "x"})),
        (FILE, "lacks target_input or its word", lambda c: c.update(embedding=torch.ones(3))),
        (FILE, "is damaged: .* has no table of outputs", lambda c: _outputs(c, lambda t: t[:0])),
        (FILE, "is damaged: .* has no table of outputs", lambda c: _outputs(c, lambda t: t[0, 0])),
        (RANK1, "is damaged: its pairs are not of", lambda c: c["key_value_params"][0].__setitem__(0, "x")),
        (RANK1, "lacks embed_params or key_value_params", lambda c: c.update(embed_params=torch.tensor(1.0))),
        (RANK1, "is damaged: its pairs are not of 7 concepts", lambda c: c.update(embed_params=torch.ones(7, 32))),
    ],
)
def test_damaged_files(file, says, change, embeddings):  # noqa: F811
    refused(embeddings, says, file=edited(embeddings, change, file))


def _outputs(contents, change):
    outputs = contents["target_output"]
    outputs.update({name: change(tensor).clone() for name, tensor in outputs.items()})


def test_files_of_other_text_encoders_do_not_join(embeddings):  # noqa: F811
    other = edited(embeddings, lambda contents: contents.update(C_inv=2 * contents["C_inv"]))
    model = load(embeddings)[0]
    refused(embeddings, "two Perfusion files of this model have different C_inv", model=model, file=other)
