"""The ED-LoRA nodes: bad inputs and bad files are answered in one sentence, before anything is patched."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.clips import encoded, golden_clip, tiny_clip
from support.edloras import TINY, loras, put, random_contents, tiny_contents  # noqa: F401 (fixture)
from support.harmful import Harmful
from support.loras import Maker
from support.models import execute, sample, tiny_model

from pack.nodes.host import messages
from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.text_contexts.edlora_file import read_edlora
from pack.nodes.text_contexts.edlora_node import EDLoRAConvert, EDLoRALoader


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def clip():
    return golden_clip()[0]


def refused(model, clip, name, says, **inputs):
    with pytest.raises(ValueError, match=says) as caught:
        execute(EDLoRALoader, model=model, clip=clip, edlora_file=name, **inputs)
    assert "\n" not in str(caught.value)
    assert not model.patches and (clip is None or not clip.patcher.patches)


def edited(**parts):
    """The golden file's contents with parts replaced; None takes a part out."""
    contents = {**tiny_contents(), **parts}
    return {name: part for name, part in contents.items() if part is not None}


def rows(count=16, width=32, names=("<a>",)):
    return {name: torch.randn(count, width) for name in names}


def unet_with(key, tensor):
    unet = dict(tiny_contents()["unet"])
    key = next(name for name in unet if name.endswith(key))
    if tensor is None:
        del unet[key]
    else:
        unet[key] = tensor
    return unet


BAD = {
    "no unet": (edited(unet=None), "is not an ED-LoRA: its unet part is missing"),
    "no words": (edited(new_concept_embedding=None), "new_concept_embedding, its words, is missing"),
    "rows": (edited(new_concept_embedding=rows(12)), "not an ED-LoRA for this model: 12 rows, expected 16"),
    "two counts": (
        edited(new_concept_embedding={**rows(16, names=("<a>",)), **rows(70, names=("<b>",))}),
        "damaged: its words have 16 and 70 rows",
    ),
    "rows of another shape": (edited(new_concept_embedding={"<a>": torch.zeros(1, 2, 3)}), r"has <a> as \(1, 2, 3\)"),
    "no name": (edited(new_concept_embedding={" ": torch.zeros(16, 32)}), "a word without a name"),
    "width of words": (
        edited(new_concept_embedding=rows(16, 40)),
        "<a> is 40 wide, the text encoder clip_l expects 32",
    ),
    "half": (edited(unet=unet_with("attn1.to_q.lora_up.weight", None)), "lacks the other half of unet.down_blocks"),
    "halves": (
        edited(unet=unet_with("attn1.to_q.lora_up.weight", torch.zeros(32, 5))),
        r"the halves of unet.*to_q are \(2, 32\) and \(32, 5\), which cannot be multiplied",
    ),
    "shape": (
        edited(unet=unet_with("attn1.to_q.lora_up.weight", torch.zeros(40, 2))),
        "changes lora_unet_.*to_q as 40 x 32, the model's is 32 x 32",
    ),
    "module": (
        edited(unet={**tiny_contents()["unet"], "up_blocks.9.x.lora_down.weight": torch.zeros(2, 3),
                     "up_blocks.9.x.lora_up.weight": torch.zeros(3, 2)}),
        r"changes lora_unet_up_blocks_9_x, which this model or clip does not have \(1 of 141 parts\)",
    ),
    "key": (edited(unet={"a.alpha": torch.ones(1)}), "its unet contains a.alpha, which is not half of a LoRA"),
    "numbers": (edited(new_concept_embedding={"<a>": torch.full((16, 32), math.nan)}), "NaN or infinite values"),
    "sdxl": (
        edited(new_concept_embedding_2=rows(16, 48, ("<cat_1>", "<cat_2>"))),
        "is an ED-LoRA for SDXL .*32 wide.*, the model is SD1.5 .32 wide.: choose a file for SD1.5",
    ),
    "other words": (edited(new_concept_embedding_2=rows()), "has different words for its two text encoders"),
    "width": (
        edited(unet=unet_with("attn2.to_k.lora_down.weight", torch.zeros(2, 768))),
        "is an ED-LoRA for SD1.5 .768 wide., the model is SD1.5 .32 wide.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_bad_files(name, ending, model, clip, loras):  # noqa: F811
    contents, says = BAD[name]
    refused(model, clip, put(loras / f"a.{ending}", contents), says)


def test_an_ordinary_lora(model, clip, loras):  # noqa: F811
    save_file(Maker(model)("lora"), loras / "style.safetensors")
    refused(model, clip, "style.safetensors", "style.safetensors is not an ED-LoRA: it contains .* with Load LoRA")


def test_files_of_other_nodes_are_named(model, clip, loras):  # noqa: F811
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"
    save_file(
        {f"{stem}.down.weight": torch.ones(8, 16), f"{stem}.up.weight": torch.ones(2, 4)}, loras / "k.safetensors"
    )
    refused(
        model, clip, "k.safetensors", "but a LoRA or KronA file with processor names; load it with Load LoRA or Load"
    )
    torch.save({"<cat-toy>": torch.ones(32)}, loras / "learned_embeds.bin")
    refused(model, clip, "learned_embeds.bin", "but a file of learned words; load it with Load Concept Words")


def test_files_that_are_no_weights(model, clip, loras, tmp_path):  # noqa: F811
    (loras / "page.pth").write_bytes(b"<!DOCTYPE html>")
    refused(model, clip, "page.pth", "is a web page")
    (loras / "cut.pth").write_bytes(TINY.read_bytes()[:5000])
    refused(model, clip, "cut.pth", "truncated or damaged")
    torch.save({"params": {"unet": Harmful(tmp_path / "harm")}}, loras / "harm.pth")
    refused(model, clip, "harm.pth", "is not safe")
    assert not (tmp_path / "harm").exists()
    refused(model, clip, "none.pth", "is not in .*found: ")


def test_models_of_another_family(clip, loras):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    sdxl = "is an ED-LoRA for another model .32 wide., the model is SDXL .48 wide.: choose a file for SDXL"
    refused(tiny_model("sdxl"), clip, TINY.name, sdxl)
    refused(tiny_model("sd2", seed=1), clip, TINY.name, "ED-LoRAs work on SD1.5 and SDXL; this model is SD2.x")
    other = tiny_model()
    other.model.diffusion_model = torch.nn.Linear(1, 1)
    refused(other, clip, TINY.name, "ED-LoRA works on UNet models")


def test_clips(model, clip, loras):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    refused(model, None, TINY.name, "clip is empty")
    refused(
        model, tiny_clip(widths={"l": 48}), TINY.name, "<cat_1> is 32 wide, the text encoder clip_l expects 48; connect"
    )
    refused(model, tiny_clip("sdxl"), TINY.name, "has no words for the text encoder clip_g, which this clip has")
    sdxl, pair = tiny_model("sdxl", seed=1), tiny_clip("sdxl")
    put(loras / "xl.pth", random_contents(sdxl, pair))
    refused(sdxl, clip, "xl.pth", "words for the text encoder clip_g, which this clip lacks")
    half = {k: v for k, v in random_contents(sdxl, pair).items() if k != "new_concept_embedding_2"}
    refused(sdxl, pair, put(loras / "half.pth", half), "lacks new_concept_embedding_2")


@pytest.mark.parametrize("name", ["strength_model", "strength_clip"])
def test_strengths(name, model, clip, loras):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    refused(model, clip, TINY.name, f"{name} is nan; enter a number", **{name: math.nan})


def test_layouts(loras):  # noqa: F811
    """With and without the outer level, as safetensors with dots or slashes, with gradients: one and the same."""
    contents = tiny_contents()
    put(loras / "a.pth", contents)
    put(loras / "b.pth", contents, wrapped=False)
    put(loras / "c.safetensors", contents)
    save_file(
        {f"params/{part}/{key}": t for part in contents for key, t in contents[part].items()}, loras / "d.safetensors"
    )
    learned = {part: {key: torch.nn.Parameter(t) for key, t in tensors.items()} for part, tensors in contents.items()}
    with torch.inference_mode(False):
        torch.save({"params": learned}, loras / "e.pth")
    first = read_edlora("a.pth")
    assert list(first.words) == ["<cat_1>", "<cat_2>"] and first.layers == 16 and len(first.unet) == 128
    for name in ("b.pth", "c.safetensors", "d.safetensors", "e.pth"):
        other = read_edlora(name)
        assert other.words.keys() == first.words.keys() and other.unet.keys() == first.unet.keys()
        assert all(torch.equal(other.words[w][0], first.words[w][0]) for w in first.words)
        assert all(torch.equal(other.unet[m][half], first.unet[m][half]) for m in first.unet for half in ("down", "up"))
        assert not any(t.requires_grad for pair in other.unet.values() for t in pair.values())


def test_a_textual_inversion(model, loras):  # noqa: F811
    """One row per word and no LoRA: words alone."""
    clip = tiny_clip()
    put(loras / "ti.pth", {"new_concept_embedding": rows(1), "text_encoder": {}, "unet": {}})
    patched, taught, words = execute(EDLoRALoader, model=model, clip=clip, edlora_file="ti.pth")
    assert words == "<a>" and not patched.patches and not taught.patcher.patches and not patched.wrappers
    ((tensor, values),) = encoded(taught, "a <a>")
    assert LAYERS not in values and not torch.equal(tensor, encoded(clip, "a <a>")[0][0])


def test_the_same_words_twice(model, clip, loras, caplog):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    one, taught, _ = execute(EDLoRALoader, model=model, clip=clip, edlora_file=TINY.name)
    execute(EDLoRALoader, model=one, clip=taught, edlora_file=TINY.name)
    assert "<cat_1>, <cat_2> already defined by an earlier ED-LoRA; replaced" in caplog.text


def test_converter(model, clip, loras):  # noqa: F811
    (loras / TINY.name).write_bytes(TINY.read_bytes())
    (path,) = execute(EDLoRAConvert, edlora_file=TINY.name, file_name="cat")
    lora, words = load_file(path), load_file(loras / "cat_words.safetensors")
    assert len(lora) == 2 * (128 + 12) and all(name.startswith(("lora_unet_", "lora_te_text_model_")) for name in lora)
    assert not any(name.endswith("alpha") for name in lora)
    assert {name: tuple(t.shape) for name, t in words.items()} == {
        f"new_concept_embedding.<cat_{i}>": (16, 32) for i in (1, 2)
    }
    # again: nothing changes; over another file: nothing is written
    before = (loras / "cat.safetensors").stat().st_mtime_ns
    execute(EDLoRAConvert, edlora_file=TINY.name, file_name="cat.safetensors")
    assert (loras / "cat.safetensors").stat().st_mtime_ns == before
    (loras / "dog_words.safetensors").write_bytes(b"mine")
    with pytest.raises(
        ValueError, match="dog_words.safetensors already exists in the loras folder with different contents"
    ):
        execute(EDLoRAConvert, edlora_file=TINY.name, file_name="dog")
    assert (loras / "dog_words.safetensors").read_bytes() == b"mine" and not (loras / "dog.safetensors").exists()
    for name in ("../cat", "a/b", "", " ", "c:cat", ".cat"):
        with pytest.raises(ValueError, match="enter a bare name"):
            execute(EDLoRAConvert, edlora_file=TINY.name, file_name=name)


def test_converter_sdxl(loras):  # noqa: F811
    model, pair = tiny_model("sdxl", seed=1), tiny_clip("sdxl")
    put(loras / "xl.pth", random_contents(model, pair))
    (path,) = execute(EDLoRAConvert, edlora_file="xl.pth", file_name="dog")
    kinds = {name.partition("_text_model")[0] for name in load_file(path) if "unet" not in name}
    assert kinds == {"lora_te1", "lora_te2"}
    words = load_file(loras / "dog_words.safetensors")
    assert sorted(words) == [f"new_concept_embedding{n}.<dog_{i}>" for n in ("", "_2") for i in (1, 2)]


def test_files_are_listed_and_missing_ones_are_named(loras):  # noqa: F811
    for node in (EDLoRALoader, EDLoRAConvert):
        assert "none found" in str(node.define_schema().inputs[2 if node is EDLoRALoader else 0].options)
        (loras / TINY.name).write_bytes(TINY.read_bytes())
        import folder_paths

        folder_paths.filename_list_cache.pop("loras", None)
        assert node.validate_inputs(edlora_file=TINY.name) is True
        assert 'edlora_file "x" is not in' in node.validate_inputs(edlora_file="x")
        stamp = node.fingerprint_inputs(edlora_file=TINY.name)
        put(loras / TINY.name, tiny_contents())
        assert node.fingerprint_inputs(edlora_file=TINY.name) != stamp
        (loras / TINY.name).unlink()
        folder_paths.filename_list_cache.pop("loras", None)


# prompts that other nodes encode


@pytest.fixture
def said(monkeypatch):
    """The sentences that are shown on a node."""
    found = []
    monkeypatch.setattr(messages, "_show", found.append)
    return found


def test_a_prompt_that_was_encoded_past_the_layers_is_said(loras, said):  # noqa: F811
    """As a node does that calls the CLIP's networks by itself: the words act, but not for each layer."""
    model, clip = tiny_model(), tiny_clip()
    name = put(loras / "dog.pth", random_contents(model, clip))
    patched, taught, _ = execute(EDLoRALoader, model=model, clip=clip, edlora_file=name)
    tokens = taught.tokenize("a <dog_1> <dog_2>")["l"]
    context, pooled = taught.cond_stage_model.clip_l.encode_token_weights(tokens)
    past = [[context, {"pooled_output": pooled}]]
    negative = with_words(taught, [Word("<bad>", {"l": torch.randn(1, 32)})])
    for texts in ((taught, "bad"), (negative, "<bad>")):
        said.clear()
        sample(patched, past, encoded(*texts))
        assert len(said) == 1 and said[0].startswith("ED-LoRA: no prompt of this run has the words by layer or step")
        assert "CLIP Text Encode" in said[0] and "likeness is weaker" in said[0]
    said.clear()
    for texts in (("a <dog_1> <dog_2>", "bad"), ("a dog", "a <dog_1>")):
        sample(patched, *(encoded(taught, text) for text in texts))
    # of two prompts one is enough
    sample(patched, past + encoded(taught, "a <dog_1>"), encoded(taught, "bad"))
    sample(model, past)
    assert not said
