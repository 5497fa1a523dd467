"""Load ProSpect and Load NeTI: what does not fit is said, and what came in stays as it was."""

import pytest
import torch
from support.clips import encoded, tiny_clip
from support.models import execute, sample, tiny_model
from support.word_files import CASES, concept_clip, embeddings, put  # noqa: F401 (fixture)

from pack.nodes.files.safe_files import read_contents
from pack.nodes.host import messages
from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.concept_words import words_of
from pack.nodes.text_contexts.varying_words_node import NeTILoader, ProSpectLoader

FILES = {NeTILoader: ("mapper_file", "neti_mapper.pt"), ProSpectLoader: ("prospect_file", "prospect_concept.pt")}


def load(node, embeddings, model=None, clip=None, file=None, **inputs):  # noqa: F811
    socket, golden = FILES[node]
    file = file or put(embeddings, golden)
    return execute(node, model=model or tiny_model(), clip=clip or concept_clip(), **{socket: file}, **inputs)


def edited(embeddings, node, change):  # noqa: F811
    """A golden file with another content, as plain dicts."""
    contents = read_contents(CASES / FILES[node][1])
    change(contents)
    torch.save(contents, embeddings / "edited.pt")
    return "edited.pt"


@pytest.mark.parametrize("node", FILES)
def test_model_and_clip_stay_as_they_were(node, embeddings):  # noqa: F811
    model, clip = tiny_model(), concept_clip()
    weights = [
        {name: t.clone() for name, t in one.state_dict().items()} for one in (model.model, clip.cond_stage_model)
    ]
    before = encoded(clip, "11 25")[0][0]
    patched, taught, words = load(node, embeddings, model, clip, word="<w>")
    assert words == "<w>" and words_of(clip) == () and not model.wrappers and not patched.patches
    sample(patched, encoded(taught, "11 <w>"), encoded(taught, "25"), steps=2)
    for one, kept in zip((model.model, clip.cond_stage_model), weights, strict=True):
        assert all(torch.equal(t, kept[name]) for name, t in one.state_dict().items())
    assert torch.equal(encoded(clip, "11 25")[0][0], before)
    # a prompt without the word is the host's, to the last bit
    plain = [encoded(which, "11 25") for which in (clip, taught)]
    assert torch.equal(sample(patched, plain[1], plain[1]), sample(model, plain[0], plain[0]))


@pytest.mark.parametrize("node", FILES)
@pytest.mark.parametrize("settings", [{"latent": (2, 4, 8, 8)}, {"cfg": 1.0}, {"sampler": "dpmpp_2s_ancestral"}])
def test_settings_of_the_sampler(node, settings, embeddings):  # noqa: F811
    model, clip, _ = load(node, embeddings, word="<w>")
    texts = encoded(clip, "11 (<w>:1.2) 40"), encoded(clip, "25")
    found = sample(model, *texts, steps=3, **settings)
    other = sample(model, encoded(clip, "11 40"), texts[1], steps=3, **settings)
    assert torch.isfinite(found).all() and not torch.allclose(found, other)


@pytest.mark.parametrize("own", ["*", "sks", ""])
def test_ordinary_names_of_a_mapper_are_not_taken(own, embeddings):  # noqa: F811
    file = edited(embeddings, NeTILoader, lambda c: c["cfg"]["data"].update(placeholder_token=own))
    assert load(NeTILoader, embeddings, file=file)[2] == "<edited>"


def test_the_words_names(embeddings):  # noqa: F811
    assert load(ProSpectLoader, embeddings)[2] == "<prospect_concept>"
    _, clip, _ = load(ProSpectLoader, embeddings, word="<w>")
    assert [word.name for word in words_of(clip)] == ["<w>", *(f"<w:{stage}>" for stage in range(1, 11))]
    assert load(NeTILoader, embeddings)[2] == "<teapot>"
    again = load(ProSpectLoader, embeddings, clip=clip, word="<w>")[1]
    assert len(words_of(again)) == 11


def test_a_prompt_without_the_word_is_said(embeddings, monkeypatch):  # noqa: F811
    """One with the word of a single stage is not: it means the same everywhere."""
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    model, clip, _ = load(ProSpectLoader, embeddings, word="<w>")
    for text in ("11 <w:6>", "11 <w>"):
        sample(model, encoded(clip, text), encoded(clip, "25"), steps=1)
    assert not said
    sample(model, encoded(clip, "11"), encoded(clip, "25"), steps=1)
    assert len(said) == 1 and said[0].startswith("ProSpect: no prompt of this run has the words by layer or step")


def test_a_mapper_alone_reads_plain_prompts_by_its_first_vector(embeddings):  # noqa: F811
    _, clip, _ = load(NeTILoader, embeddings)
    put(embeddings, "neti_learned_embeds.bin")
    _, beside, _ = load(NeTILoader, embeddings)
    plain = [encoded(one, "11 <teapot>")[0] for one in (clip, beside)]
    assert not torch.allclose(plain[0][0], plain[1][0])
    assert all(torch.equal(a, b) for a, b in zip(*(one[1][LAYERS].at(500.0) for one in plain), strict=True))


def refused(node, embeddings, says, **inputs):  # noqa: F811
    with pytest.raises(ValueError, match=says) as caught:
        load(node, embeddings, **inputs)
    assert "\n" not in str(caught.value)


def test_bad_neti_files(embeddings):  # noqa: F811
    def file(change):
        return edited(embeddings, NeTILoader, change)

    refused(NeTILoader, embeddings, "NeTI files are for SD1.x, with 16 .* this model is SD2.x with 16",
            model=tiny_model("sd2", seed=1))  # fmt: skip
    refused(NeTILoader, embeddings, "this model is SDXL with 28", model=tiny_model("sdxl"), clip=tiny_clip("sdxl"))
    refused(NeTILoader, embeddings, "truncation is 200; enter a number from 0 to 128", truncation=200)
    wide = tiny_clip(widths={"l": 48})
    refused(NeTILoader, embeddings, "makes rows of 64, the text encoder of this clip reads 48 or, .* 96", clip=wide)
    lacking = file(lambda contents: contents["state_dict"].pop("net.4.bias"))
    refused(NeTILoader, embeddings, "lacks net.4.bias of NeTI's network", file=lacking)
    lacking = file(lambda contents: contents["encoder"].pop("w"))
    refused(NeTILoader, embeddings, "lacks encoder.w of NeTI's network", file=lacking)
    damaged = file(lambda contents: contents["state_dict"].update({"net.4.weight": torch.ones(128, 64)}))
    refused(NeTILoader, embeddings, "is damaged: the parts of its network do not fit together", file=damaged)
    other = put(embeddings, "prospect_concept.pt")
    refused(NeTILoader, embeddings, "is a ProSpect file, not a NeTI mapper; load it with Load ProSpect", file=other)


def test_bad_prospect_files(embeddings):  # noqa: F811
    def file(change):
        return edited(embeddings, ProSpectLoader, change)

    lacking = file(lambda contents: contents["attention"].pop("norm3.weight"))
    refused(ProSpectLoader, embeddings, "lacks norm3.weight of ProSpect's network", file=lacking)
    short = file(lambda contents: contents["attention"].update({"ff.net.2.weight": torch.ones(288, 128)}))
    refused(ProSpectLoader, embeddings, "makes 288 numbers .* ProSpect makes 10 rows of 32, 320", file=short)
    refused(ProSpectLoader, embeddings, "is 32 wide, .* of this clip are 48", clip=tiny_clip(widths={"l": 48}))
    other = put(embeddings, "bundle_assets.bin")
    refused(ProSpectLoader, embeddings, "is a file of learned words, not a ProSpect file; load it with Load Concept",
            file=other)  # fmt: skip
