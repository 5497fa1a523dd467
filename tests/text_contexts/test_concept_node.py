"""Concept files: every layout gives its words, in every family; what does not fit is said before anything happens."""

import json

import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.clips import encoded, tiny_clip
from support.loras import Maker
from support.models import execute, tiny_model
from support.word_files import CASES, embeddings, put  # noqa: F401 (fixture)

from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.concept_file import read_concept
from pack.nodes.text_contexts.concept_node import ConceptConvert, ConceptLoader
from pack.nodes.text_contexts.concept_words import words_of

WIDTHS = {"sd15": {"l": 768}, "sd2": {"h": 1024}, "sdxl": {"l": 768, "g": 1280}}
TINY = {"sd15": {"l": 32}, "sd2": {"h": 40}, "sdxl": {"l": 32, "g": 48}}


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed + width))


def pair(count, seed=0):
    return {"clip_l": rows(count, 32, seed), "clip_g": rows(count, 48, seed)}


# {name: (file, contents, kind of clip, words, [(word, encoder, its rows)])}
def layouts():
    one, three = rows(1, 32), rows(3, 32, 1)
    two = pair(2)
    wide = {"<a>": [rows(1, 32)[0], rows(1, 48)[0]], "<b>": [rows(1, 32, 5)[0], rows(1, 48, 5)[0]]}
    return {
        "a1111": ("cup.pt", {"string_to_param": {"*": three}, "string_to_token": {"*": 265}, "name": "x", "step": 4},
                  "sd15", "<cup>", [("<cup>", "l", three)]),
        "its own name": ("cup.pt", {"string_to_param": {"<toy>": one}}, "sd15", "<toy>", [("<toy>", "l", one)]),
        "diffusers": ("learned_embeds.bin", {"<cat-toy>": one[0]}, "sd15", "<cat-toy>", [("<cat-toy>", "l", one)]),
        "several": ("x.bin", {"28_v0": one[0], "28_v1": three[0]}, "sd15", "28_v0 28_v1",
                    [("28_v0", "l", one), ("28_v1", "l", three[:1])]),
        "ordinary words": ("pet.bin", {"cat": one[0], "dog": three[0]}, "sd15", "<pet> <pet_dog>",
                           [("<pet>", "l", one), ("<pet_dog>", "l", three[:1])]),
        "sd2": ("b.bin", {"<asset0>": rows(1, 40)[0]}, "sd2", "<asset0>", [("<asset0>", "h", rows(1, 40))]),
        "clip_h": ("my file.safetensors", {"clip_h": rows(2, 40)}, "sd2", "<my_file>",
                   [("<my_file>", "h", rows(2, 40)), ("<s1>", "h", rows(2, 40)[1:])]),
        "emb_params": ("e.safetensors", {"emb_params": three}, "sd15", "<e>", [("<e>", "l", three)]),
        "sdxl": ("xl.safetensors", pair(1), "sdxl", "<xl>", [("<xl>", "g", pair(1)["clip_g"])]),
        "pivotal tuning": ("pt.safetensors", two, "sdxl", "<pt>",
                           [("<pt>", "l", two["clip_l"]), ("<s0>", "g", two["clip_g"][:1])]),
        "older pivotal tuning": ("pt.safetensors", {"text_encoders_0": two["clip_l"], "text_encoders_1": two["clip_g"]},
                                 "sdxl", "<pt>", [("<pt>", "g", two["clip_g"]), ("<s1>", "l", two["clip_l"][1:])]),
        "kohya bundle": ("lora.safetensors", {"bundle_emb.cat.string_to_param.*": one, "bundle_emb.dog.clip_l": three,
                                              "lora_unet_x.lora_down.weight": one.clone()},
                         "sd15", "<cat> <dog>", [("<cat>", "l", one), ("<dog>", "l", three)]),
        "own bundle": ("own.safetensors", {"bundle_emb.<a>.clip_l": one, "bundle_emb.my.cat.clip_l": three}, "sd15",
                       "<a> <my.cat>", [("<a>", "l", one), ("<my.cat>", "l", three)]),
        "modifier_token": ("m.bin", {"modifier_token": {"<new1>": one[0]}}, "sd15", "<new1>", [("<new1>", "l", one)]),
        "modifier_token of SDXL": ("m.bin", {"modifier_token": wide}, "sdxl", "<a> <b>",
                                   [("<b>", "g", rows(1, 48, 5))]),
        "a list": ("l.bin", [{"<a>": one[0]}, {"<b>": three[0]}], "sd15", "<a> <b>", [("<b>", "l", three[:1])]),
        "a list without names": ("l.bin", [{"string_to_param": {"*": one}}, {"string_to_param": {"*": three}}], "sd15",
                                 "<l> <l_2>", [("<l>", "l", one), ("<l_2>", "l", three)]),
        "a list with a part for each encoder": ("l.bin", [{"<a>": part[0]} for part in pair(1).values()], "sdxl", "<a>",
                                                [("<a>", "g", pair(1)["clip_g"]), ("<a>", "l", pair(1)["clip_l"])]),
        "a table": ("token_embedding.pth", {"weight": torch.cat([one.expand(49408, -1), three[:2]])}, "sd15",
                    "<v0> <v1>", [("<v0>", "l", three[:1]), ("<v1>", "l", three[1:2])]),
    }  # fmt: skip


def written(path, contents):
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in contents.items()}, path)
    else:
        torch.save(contents, path)
    return path.name


@pytest.mark.parametrize("name", layouts())
def test_layouts(name, embeddings):  # noqa: F811
    file, contents, kind, words, expected = layouts()[name]
    clip = tiny_clip(kind)
    taught, said = execute(ConceptLoader, clip=clip, concept_file=written(embeddings / file, contents))
    assert said == words and words_of(clip) == ()
    known = {word.name: word for word in words_of(taught)}
    for word, encoder, table in expected:
        assert torch.equal(known[word].vectors(encoder)[:, 0, 0], table)
    ((tensor, values),) = encoded(taught, f"a photo of {words}, red")
    assert LAYERS not in values and torch.isfinite(tensor).all()
    tokens = [token for token, *_ in taught.tokenize(f"a {words}")[expected[0][1]][0]]
    count = sum(len(known[word].vectors(expected[0][1])) for word in words.split())
    assert sum(map(torch.is_tensor, tokens)) == count
    # a prompt without the words is the host's
    assert torch.equal(encoded(taught, "a cup")[0][0], encoded(clip, "a cup")[0][0])


def test_names_of_a_table_come_from_the_files_beside_it(embeddings):  # noqa: F811
    folder = embeddings / "pets" / "text_encoder"
    folder.mkdir(parents=True)
    table = torch.cat([rows(1, 32).expand(49408, -1), rows(2, 32, 3)])
    torch.save({"text_model.embeddings.token_embedding.weight": table}, folder / "pytorch_model.bin")
    (embeddings / "pets" / "tokenizer").mkdir()
    names = embeddings / "pets" / "tokenizer" / "added_tokens.json"
    names.write_text(json.dumps({"<asset1>": 49409, "<asset0>": 49408}))
    _, words = execute(ConceptLoader, clip=tiny_clip(), concept_file="pets/text_encoder/pytorch_model.bin")
    assert words == "<asset0> <asset1>"
    names.write_text("[1")
    _, words = execute(ConceptLoader, clip=tiny_clip(), concept_file="pets/text_encoder/pytorch_model.bin")
    assert words == "<v0> <v1>"


def test_names_of_the_users_own(embeddings):  # noqa: F811
    clip = tiny_clip()
    file = put(embeddings, "bundle_assets.bin")

    def load(word, clip=clip):
        return execute(ConceptLoader, clip=clip, concept_file=file, word=word)

    taught, words = load(" my toy cat ")
    assert words == "my toy cat"
    taught, words = load("<toys>")
    assert words == "<toys>" and len(words_of(taught)[0].vectors("l")) == 3
    context = encoded(taught, "a <toys>")[0][0]
    apart, _ = load("")
    assert torch.allclose(context, encoded(apart, "a <asset0> <asset1> <asset2>")[0][0], atol=1e-5)
    with pytest.raises(ValueError, match=r"has 3 words \(<asset0>, <asset1>, <asset2>\), word has 2 names"):
        load("<a> <b>")
    with pytest.raises(ValueError, match="word consists of spaces only"):
        load("  ")
    with pytest.raises(ValueError, match='the word "asset" stands in "<asset0>", which this clip knows'):
        load("asset", apart)


@pytest.mark.parametrize("name", ["*", "my (cat)"])
def test_a_files_name_with_the_signs_of_weights(name, embeddings):  # noqa: F811
    file = written(embeddings / "cat (1).pt", {"string_to_param": {name: rows(1, 32)}})
    taught, words = execute(ConceptLoader, clip=tiny_clip(), concept_file=file)
    assert words == ("<cat_1_>" if name == "*" else "<my_cat_>")
    tokens = [token for token, *_ in taught.tokenize(f"a photo of {words}")["l"][0]]
    assert sum(map(torch.is_tensor, tokens)) == 1


@pytest.mark.parametrize("word", ["my cat (old)", "embedding:cat"])
def test_entered_names_that_are_read_as_something_else(word, embeddings):  # noqa: F811
    file = written(embeddings / "cat.pt", {"string_to_param": {"*": rows(1, 32)}})
    with pytest.raises(ValueError, match="is read as something else in a prompt"):
        execute(ConceptLoader, clip=tiny_clip(), concept_file=file, word=word)


def test_the_same_words_again_are_said(embeddings, caplog):  # noqa: F811
    file = put(embeddings, "bundle_diffusers_new1.bin")
    taught, _ = execute(ConceptLoader, clip=tiny_clip(), concept_file=file)
    execute(ConceptLoader, clip=taught, concept_file=file)
    assert "<new1> already defined by an earlier file; replaced" in caplog.text


def test_a_word_that_is_twice_in_a_file_is_said(embeddings, caplog):  # noqa: F811
    """The last one counts; what it lacks of another text encoder stays."""
    one, other = rows(1, 32), rows(2, 32, 7)
    for wide in ([], [{"<a>": rows(1, 48)}]):
        file = written(embeddings / "twice.bin", [{"<a>": one}, *wide, {"<a>": other}])
        found = [part.rows for part in read_concept(file).words["<a>"]]
        assert all(map(torch.equal, found, [*(part["<a>"] for part in wide), other])) and len(found) == 1 + len(wide)
    assert "twice.bin has the word <a> twice; the last one counts" in caplog.text


def test_words_of_several_loaders_in_one_prompt(embeddings):  # noqa: F811
    """With weights, in a long prompt, beside each other."""
    clip = tiny_clip()
    one, two = put(embeddings, "bundle_assets.bin"), put(embeddings, "bundle_a1111.pt")
    first, _ = execute(ConceptLoader, clip=clip, concept_file=one)
    both, _ = execute(ConceptLoader, clip=first, concept_file=two)
    other, _ = execute(ConceptLoader, clip=clip, concept_file=two)
    turned, _ = execute(ConceptLoader, clip=other, concept_file=one)
    text = "a (<asset0>:1.3), <bundle_a1111> and <asset2>" + ", sea" * 60
    assert torch.equal(encoded(both, text)[0][0], encoded(turned, text)[0][0])
    assert encoded(both, text)[0][0].shape[1] == 154
    assert not torch.allclose(encoded(both, text)[0][0], encoded(both, text.replace(":1.3", ":1.0"))[0][0])


@pytest.mark.parametrize("pooled", ["eos", "concept"])
def test_pooled_text_of_sdxl(pooled, embeddings):  # noqa: F811
    clip = tiny_clip("sdxl")
    file = written(embeddings / "xl.safetensors", pair(1))
    taught, _ = execute(ConceptLoader, clip=clip, concept_file=file, pooled=pooled)
    read = encoded(taught, "a <xl> in the sun")[0][1]["pooled_output"]
    stock, _ = execute(ConceptLoader, clip=clip, concept_file=file)
    assert torch.equal(read, encoded(stock, "a <xl> in the sun")[0][1]["pooled_output"]) == (pooled == "eos")


def refused(embeddings, contents, says, kind="sd15", file="x.pt", node=ConceptLoader, **inputs):  # noqa: F811
    name = written(embeddings / file, contents)
    inputs = {"clip": tiny_clip(kind)} | inputs if node is ConceptLoader else inputs
    with pytest.raises(ValueError, match=says) as caught:
        execute(node, concept_file=name, **inputs)
    assert "\n" not in str(caught.value)


def test_files_of_another_family(embeddings):  # noqa: F811
    refused(embeddings, {"<a>": rows(1, 1024)[0]}, "<a> is 1024 wide, so the file is for SD2.x; .* of this clip are 32")
    refused(embeddings, {"<a>": rows(1, 32)[0]}, "<a> has nothing for clip_g, so the file is for SD1.x", kind="sdxl")
    refused(embeddings, pair(1), "is 48 wide, so the file is for another family", file="x.safetensors")
    two = {"clip_l": rows(2, 32), "clip_g": rows(1, 48)}
    refused(embeddings, two, "is damaged: it has 1 and 2 rows", kind="sdxl", file="x.safetensors")


def test_files_of_other_nodes_are_named(embeddings):  # noqa: F811
    lora = Maker(tiny_model())("lora")
    refused(embeddings, lora, "is a LoRA, not a file of learned words; load it with Load LoRA", file="x.safetensors")
    for file, node in (
        ("neti_mapper.pt", "Load NeTI"),
        ("prospect_concept.pt", "Load ProSpect"),
        ("perfusion_teddy.ckpt", "Load Perfusion"),
        ("perfusion_rank1.pt", "Load Perfusion"),
    ):
        contents = (CASES / file).read_bytes()
        (embeddings / file).write_bytes(contents)
        with pytest.raises(ValueError, match=f"not a file of learned words; load it with {node}"):
            execute(ConceptLoader, clip=tiny_clip(), concept_file=file)
    edlora = {"params": {"new_concept_embedding": {"<a>": rows(16, 32)}, "unet": {}}}
    refused(embeddings, edlora, "is an ED-LoRA, .*; load it with Load ED-LoRA", file="x.pth")
    weights = {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_custom_diffusion.weight": rows(2, 2)
    }
    refused(embeddings, weights, "is a Custom Diffusion file, .*; load it with Load Custom Diffusion", file="x.bin")
    checkpoint = {"first_stage_model.x": rows(1, 2), "model.diffusion_model.y": rows(1, 2)}
    refused(embeddings, checkpoint, "is a whole checkpoint, .*; load it with Load Checkpoint", file="x.safetensors")
    refused(embeddings, {"a": torch.ones(2, 2, 2)}, "is not a file of learned words; choose one")


def test_convert(embeddings):  # noqa: F811
    first, second = rows(2, 768), rows(1, 768, 1)
    file = written(embeddings / "cups.bin", {"<cup>": first, "<big-cup>": second[0]})
    (path,) = execute(ConceptConvert, concept_file=file, file_name="mine")
    assert torch.equal(load_file(path)["clip_l"], torch.cat([first, second]))
    assert torch.equal(load_file(embeddings / "mine_cup.safetensors")["clip_l"], first)
    assert torch.equal(load_file(embeddings / "mine_big-cup.safetensors")["clip_l"], second)
    xl = {"clip_l": rows(1, 768), "clip_g": rows(1, 1280)}
    (path,) = execute(ConceptConvert, concept_file=written(embeddings / "xl.safetensors", xl), file_name="new")
    assert load_file(path).keys() == {"clip_l", "clip_g"} and not (embeddings / "new_xl.safetensors").exists()
    (path,) = execute(ConceptConvert, concept_file=written(embeddings / "h.bin", {"<h>": rows(1, 1024)[0]}),
                      file_name="h2")  # fmt: skip
    assert list(load_file(path)) == ["clip_h"]
    refused(embeddings, {"<a>": rows(1, 32)[0]}, "is 32 wide, which no text encoder", node=ConceptConvert, file="t.bin")
    with pytest.raises(ValueError, match="enter a bare name"):
        execute(ConceptConvert, concept_file=file, file_name="../x")
    (embeddings / "other.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match="already exists in the embeddings folder with different contents"):
        execute(ConceptConvert, concept_file=file, file_name="other")
    assert (embeddings / "other.safetensors").read_bytes() == b"mine"


def test_a_text_encoder_with_words_is_written_without_them(embeddings, tmp_path, monkeypatch):  # noqa: F811
    """The host refuses the longer table; words and encoder go into files of their own."""
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "text_encoders", ([str(tmp_path / "te")], {".safetensors"})
    )
    name, words = "text_model.embeddings.token_embedding.weight", rows(2, 768, 3)
    own = rows(1, 768).expand(49408, -1)
    torch.save({name: torch.cat([own, words]), "text_model.x": torch.ones(3)}, embeddings / "pytorch_model.bin")
    (path,) = execute(ConceptConvert, concept_file="pytorch_model.bin", file_name="scene")
    assert torch.equal(load_file(path)["clip_l"], words)
    encoder = load_file(tmp_path / "te" / "scene_text_encoder.safetensors")
    assert torch.equal(encoder[name], own) and torch.equal(encoder["text_model.x"], torch.ones(3))


def test_what_is_converted_reads_in_a_stock_prompt_as_the_words_do(embeddings):  # noqa: F811
    """The host's own syntax, with real widths."""
    clip = tiny_clip(widths={"l": 768})
    table = rows(3, 768)
    file = written(embeddings / "cups.bin", {"<a>": table[0], "<b>": table[1], "<c>": table[2]})
    execute(ConceptConvert, concept_file=file, file_name="mine")
    taught, words = execute(ConceptLoader, clip=clip, concept_file=file)
    clip.tokenizer.clip_l.embedding_directory = [str(embeddings)]
    ours, stock = encoded(taught, f"a {words} here")[0][0], encoded(clip, "a embedding:mine here")[0][0]
    assert torch.allclose(ours, stock, atol=1e-5)
