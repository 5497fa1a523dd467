"""New words in the host's own CLIP: tokens, weights, long prompts, layers, the pooled text."""

import copy

import pytest
import torch
from support.clips import encoded, tiny_clip

from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.text_contexts.concept_words import Word, with_words, words_of

WIDTHS = {"l": 32, "g": 48}
PROMPT = "a <dog_1> <dog_2> on the beach"


def word(name, layers=4, seed=0, kind="sd15", **values):
    generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
    encoders = ("l", "g") if kind == "sdxl" else ("l",)
    return Word(name, {e: torch.randn(layers, WIDTHS[e], generator=generator) for e in encoders}, **values)


WORDS = {kind: [word("<dog_1>", kind=kind), word("<dog_2>", kind=kind)] for kind in ("sd15", "sdxl")}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def pair(request):
    """(a bare CLIP, the same with two words of 4 layers)"""
    clip = tiny_clip(request.param)
    return clip, with_words(clip, WORDS[request.param])


def by_hand(clip, text, layer, words):
    """The context of one layer: names become ordinary tokens whose entries in the embedding table are swapped."""
    tokens = clip.tokenize(text.replace("<dog_1>", "zebra").replace("<dog_2>", "yacht"))
    swapped = {}
    for encoder, lists in tokens.items():
        ids = {
            name: clip.tokenize(stand)[encoder][0][1][0] for name, stand in (("<dog_1>", "zebra"), ("<dog_2>", "yacht"))
        }
        rows = {ids[w.name]: w.rows[encoder][layer % len(w.rows[encoder])] for w in words}
        swapped[encoder] = [[(rows.get(token, token), weight) for token, weight in part] for part in lists]
    return clip.encode_from_tokens(swapped)


def near(a, b):
    assert a.shape == b.shape
    assert (a - b).norm() / b.norm() < 1e-5


TEXTS = {
    "plain": PROMPT,
    "weights": "a (<dog_1> <dog_2>:1.3) on the (beach)",
    "punctuation": "<dog_1> <dog_2>, (<dog_1>:0.5), sand",
    "without spaces": "a big<dog_1><dog_2>s",
    "long": PROMPT + ", sun" * 60 + ", <dog_2>" + ", sea" * 45,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_each_layer_reads_its_row(pair, text):
    clip, taught = pair
    words = words_of(taught)
    # by hand a name needs spaces around it, or it would join its neighbour
    spaced = text.replace("big<dog_1><dog_2>s", "big <dog_1> <dog_2> s")
    ((tensor, values),) = encoded(taught, text)
    assert torch.equal(tensor, values[LAYERS][:1]) and torch.equal(tensor, values[PLAIN])
    for layer in range(4):
        near(values[LAYERS][layer : layer + 1], by_hand(clip, spaced, layer, words))
    assert values[LAYERS].shape[1] == 77 * (3 if text is TEXTS["long"] else 1)


def test_prompts_without_the_words_are_the_hosts(pair):
    clip, taught = pair
    for text in ("a dog on the beach", "", "a (dog:1.2) <dog_3>", "long " * 100):
        (ours,), (theirs,) = encoded(taught, text), encoded(clip, text)
        assert torch.equal(ours[0], theirs[0]) and ours[1].keys() == theirs[1].keys()
        assert torch.equal(ours[1]["pooled_output"], theirs[1]["pooled_output"])


def test_a_word_is_one_slot(pair):
    clip, taught = pair
    for lists in taught.tokenize(PROMPT).values():
        (part,) = lists
        plain = clip.tokenize("a x x on the beach")["l"][0]
        assert len(part) == 77
        assert [isinstance(token, torch.Tensor) for token, _ in part[:4]] == [False, False, True, True]
        assert [token for token, _ in part[4:8]] == [token for token, _ in plain[4:8]]
    with_ids = taught.tokenize(PROMPT, return_word_ids=True)
    assert all(len(entry) == 3 for lists in with_ids.values() for part in lists for entry in part)


def test_the_clip_that_came_in_knows_nothing(pair):
    clip, taught = pair
    assert words_of(clip) == () and [w.name for w in words_of(taught)] == ["<dog_1>", "<dog_2>"]
    assert all(not isinstance(token, torch.Tensor) for part in clip.tokenize(PROMPT)["l"] for token, _ in part)
    assert LAYERS not in encoded(clip, PROMPT)[0][1]


def test_other_nodes_keep_the_words(pair):
    """Clones, skipped layers, copied tokens."""
    clip, taught = pair
    further = taught.clone()
    near(encoded(further, PROMPT)[0][1][LAYERS], encoded(taught, PROMPT)[0][1][LAYERS])
    further.clip_layer(-2)
    bare = clip.clone()
    bare.clip_layer(-2)
    near(encoded(further, PROMPT)[0][1][LAYERS][3:], by_hand(bare, PROMPT, 3, words_of(taught)))
    tokens = copy.deepcopy(taught.tokenize(PROMPT))
    near(taught.encode_from_tokens_scheduled(tokens)[0][1][LAYERS], encoded(taught, PROMPT)[0][1][LAYERS])
    # nodes that ask for tensors alone get the first layer's
    cond, pooled = taught.encode_from_tokens(tokens, return_pooled=True)
    assert torch.equal(cond, encoded(taught, PROMPT)[0][0]) and pooled is not None


def test_one_row_is_for_all_layers():
    clip = tiny_clip()
    taught = with_words(clip, [word("<dog_1>", layers=1)])
    ((tensor, values),) = encoded(taught, "a <dog_1>")
    near(tensor, by_hand(clip, "a <dog_1>", 0, words_of(taught)))
    assert LAYERS not in values
    both = with_words(taught, [word("<dog_2>", layers=4)])
    ((_, values),) = encoded(both, PROMPT)
    for layer in range(4):
        near(values[LAYERS][layer : layer + 1], by_hand(clip, PROMPT, layer, words_of(both)))


def test_words_of_several_files():
    clip = tiny_clip()
    one, other = with_words(clip, [word("<dog_1>")]), with_words(clip, [word("<dog_2>")])
    chained = with_words(one, [word("<dog_2>")])
    near(encoded(chained, "<dog_2> and <dog_1>")[0][0], by_hand(clip, "<dog_2> and <dog_1>", 0, words_of(chained)))
    near(encoded(chained, "a <dog_1>")[0][0], encoded(one, "a <dog_1>")[0][0])
    near(encoded(chained, "a <dog_2>")[0][0], encoded(other, "a <dog_2>")[0][0])
    replaced = with_words(chained, [word("<dog_1>", seed=9)])
    assert [w.name for w in words_of(replaced)] == ["<dog_2>", "<dog_1>"]
    assert not torch.allclose(encoded(replaced, "a <dog_1>")[0][0], encoded(one, "a <dog_1>")[0][0])
    mixed = with_words(one, [word("<dog_2>", layers=6)])
    with pytest.raises(ValueError, match="contains words with 4 and 6 layers"):
        encoded(mixed, PROMPT)


def test_a_name_that_begins_like_another():
    clip = tiny_clip()
    taught = with_words(clip, [word("dog"), word("dog two")])
    tokens = [token for token, _ in taught.tokenize("a dog two and a dog")["l"][0]]
    rows = {w.name: w.rows["l"][0] for w in words_of(taught)}
    assert torch.equal(tokens[2], rows["dog two"]) and torch.equal(tokens[5], rows["dog"])


@pytest.mark.parametrize(
    ("text", "count"),
    [("a cat and two cats", 1), ("Cat, CAT: scatter a category", 2), ("cat9 <cat>", 2), ("my cat and my cats", 1)],
)
def test_a_name_of_letters_is_none_within_other_words(text, count):
    """CLIP does not tell capitals apart, and splits letters from digits."""
    name = "my cat" if "my" in text else "cat"
    taught = with_words(tiny_clip(), [Word(name, {"l": torch.rand(1, 32)})])
    (part,) = taught.tokenize(text)["l"]
    assert sum(torch.is_tensor(token) for token, _ in part) == count


def test_embedding_files_stay_in_reach(tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(2, 32)}}, tmp_path / "style.pt")
    clip = tiny_clip()
    clip.tokenizer.clip_l.embedding_directory = [str(tmp_path)]
    clip.tokenizer.clip_l.embedding_size = 32
    taught = with_words(clip, WORDS["sd15"])
    tokens = [token for token, _ in taught.tokenize("<dog_1>, embedding:style <dog_2>")["l"][0]]
    vectors = [token for token in tokens if isinstance(token, torch.Tensor)]
    assert [float(v.sum()) == 32 for v in vectors] == [False, True, True, False]


def test_texts_of_their_own_for_both_encoders():
    """As CLIP Text Encode SDXL: one text is longer, and only one holds the words."""
    clip = tiny_clip("sdxl")
    taught = with_words(clip, WORDS["sdxl"])
    tokens = taught.tokenize("sun " * 100)
    tokens["l"] = taught.tokenize(PROMPT)["l"]
    ((tensor, values),) = taught.encode_from_tokens_scheduled(tokens)
    assert values[LAYERS].shape == (4, 77, 80)
    stand = clip.tokenize("sun " * 100)
    stand["l"] = clip.tokenize("a zebra yacht on the beach")["l"]
    plain = clip.encode_from_tokens(stand)
    near(values[LAYERS][:1, :, 32:], plain[:, :77, 32:])
    near(values[LAYERS][3:, :, 32:], plain[:, :77, 32:])
    assert not torch.allclose(values[LAYERS][0, :, :32], values[LAYERS][3, :, :32])


@pytest.mark.parametrize("text", [PROMPT, "(<dog_2>:1.4) and <dog_1>, <dog_2>"])
def test_pooled(text):
    """ "concept" pools where transformers does for added tokens: at the highest id's first place (eos_token_id 2)."""
    clip = tiny_clip("sdxl")
    words = WORDS["sdxl"]
    at_end = with_words(clip, words)
    at_word = with_words(clip, [Word(w.name, w.rows, pools=True) for w in words])
    tokens = at_end.tokenize(text)
    ((tensor, values),), ((other, others),) = encoded(at_end, text), encoded(at_word, text)
    assert torch.equal(tensor, other) and torch.equal(values[LAYERS], others[LAYERS])
    assert (values["pooled_output"] - others["pooled_output"]).norm() / values["pooled_output"].norm() > 0.1
    near(others["pooled_output"], published_pooled(clip, tokens["g"][0], words))
    # the host's where no word stands
    near(encoded(at_word, "a dog")[0][1]["pooled_output"], encoded(clip, "a dog")[0][1]["pooled_output"])
    # as it is asked for: not projected (unCLIP)
    raw, shown = (c.encode_from_tokens(c.tokenize(text), return_pooled="unprojected")[1] for c in (at_word, at_end))
    projection = clip.cond_stage_model.clip_g.transformer.text_projection.weight
    near(raw @ projection.T, others["pooled_output"])
    assert not torch.allclose(raw, shown)


def published_pooled(clip, part, words):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    network = clip.cond_stage_model.clip_g.transformer
    size = 49408
    config = CLIPTextConfig(
        vocab_size=size + len(words),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=48,
        hidden_act="gelu",
        eos_token_id=2,
    )
    theirs = CLIPTextModelWithProjection(config).eval()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    table = "text_model.embeddings.token_embedding.weight"
    state[table] = torch.cat([state[table], *(w.rows["g"][:1] for w in words)])
    theirs.load_state_dict(state, strict=False)
    numbers = {float(w.rows["g"][0].sum()): size + i for i, w in enumerate(words)}
    ids = [numbers[float(t.sum())] if isinstance(t, torch.Tensor) else t for t, _ in part]
    return theirs(input_ids=torch.tensor([ids])).text_embeds


def test_the_networks_weights_are_shared(pair):
    clip, taught = pair
    ours, theirs = taught.cond_stage_model, clip.cond_stage_model
    assert all(one is two for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert taught.patcher.model is clip.patcher.model and type(ours) is type(theirs)


# encoders of other nodes


def test_the_inner_tokenizer_takes_texts_without_start_and_end(pair):
    """As a node with a parser of its own calls it: parts of a prompt, and it sets the marks itself."""
    bare, clip = pair
    for encoder in clip.tokenizer.__dict__.keys() & {"clip_l", "clip_g"}:
        inner, known = (getattr(c.tokenizer, encoder).tokenizer for c in (bare, clip))
        texts = ["a <dog_1>", "a cat", "<dog_2>", ""]
        ids = known(texts, truncation=False, add_special_tokens=False)["input_ids"]
        assert [len(one) for one in ids] == [2, 2, 1, 0]
        assert ids[1] == inner("a cat", add_special_tokens=False)["input_ids"]
        assert ids[0][0] == ids[1][0] and torch.is_tensor(ids[0][1]) and torch.is_tensor(ids[2][0])
        # with the marks each text is what it is alone
        marked = known(texts)["input_ids"]
        assert [len(one) for one in marked] == [4, 4, 3, 2]
        assert marked[1] == inner("a cat")["input_ids"] and marked[0][0] == marked[1][0]
        assert marked[0][-1] == marked[1][-1] == marked[2][-1]


# words that vary by stage, take several tokens, or are read otherwise by keys


def staged(name, layers=1, tokens=1, kind="sd15", seed=0, **values):
    generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
    shape = tokens, 10, layers
    encoders = ("l", "g") if kind == "sdxl" else ("l",)
    return Word(name, {e: torch.randn(*shape, WIDTHS[e], generator=generator) for e in encoders}, **values)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("text", [PROMPT, TEXTS["long"], TEXTS["weights"]], ids=["plain", "long", "weights"])
def test_each_stage_reads_its_row_and_layers_multiply(kind, text):
    clip = tiny_clip(kind)
    words = [staged("<dog_1>", kind=kind), word("<dog_2>", kind=kind)]
    ((tensor, values),) = encoded(with_words(clip, words), text)
    assert values[LAYERS].keys.shape[:2] == (10, 4)
    assert torch.equal(values[PLAIN], tensor) and torch.equal(tensor, values[LAYERS].keys[9, :1])
    for timestep, stage in ((0, 0), (437, 4), (999, 9)):
        keys, apart = values[LAYERS].at(timestep)
        assert apart is None
        rows = {e: r[0, stage] for e, r in words[0].rows.items()}
        for layer in (0, 3):
            near(keys[layer : layer + 1], by_hand(clip, text, layer, [Word("<dog_1>", rows), words[1]]))


def test_words_of_several_tokens():
    clip = tiny_clip()
    several = staged("<dog_1>", tokens=3)
    rows = several.rows["l"]
    apart = [Word(f"<v{i}>", {"l": rows[i]}) for i in range(3)]
    ((_, ours),) = encoded(with_words(clip, [several]), "a (<dog_1>:1.2) on a <dog_1> beach")
    ((_, theirs),) = encoded(with_words(clip, apart), "a (<v0><v1><v2>:1.2) on a <v0> <v1><v2> beach")
    near(ours[LAYERS].keys, theirs[LAYERS].keys)
    fixed = Word("<dog_1>", {"l": rows[:, :1]})
    tokens = [token for token, _ in with_words(clip, [fixed]).tokenize("a <dog_1> b")["l"][0]]
    assert [torch.is_tensor(token) for token in tokens[:6]] == [False, False, True, True, True, False]
    assert LAYERS not in encoded(with_words(clip, [fixed]), "a <dog_1>")[0][1]


@pytest.mark.parametrize("text", [PROMPT, TEXTS["long"], TEXTS["weights"]], ids=["plain", "long", "weights"])
@pytest.mark.parametrize("instead", ["dog", "teddy bear"])
def test_keys_read_another_text_in_the_place_of_a_word(text, instead):
    clip = tiny_clip()
    shared = word("<dog_2>", layers=1)
    taught = with_words(clip, [Word("<dog_1>", word("<dog_1>", 1).rows, keys_as=instead), shared])
    ((tensor, values),) = encoded(taught, text)
    keys, apart = values[LAYERS].at(500)
    ((mine, _),) = encoded(with_words(clip, [word("<dog_1>", 1), shared]), text)
    near(apart, mine)
    assert torch.equal(tensor, apart)
    ((theirs, _),) = encoded(with_words(clip, [shared]), text.replace("<dog_1>", instead))
    first = clip.tokenize(text.split("<dog_1>")[0].replace("(", ""))["l"][0]
    at = [token for token, _ in first].index(49407)
    more = len(instead.split()) - 1
    # the word's place has the last token's key, and what is behind goes on
    near(keys[:, :at], theirs[:, :at])
    near(keys[:, at : at + 4], theirs[:, at + more : at + more + 4])
    assert not torch.allclose(keys[:, at + 1], apart[:, at + 1])


def test_too_many_ways_to_read_a_prompt_are_refused():
    taught = with_words(tiny_clip(), [staged("<dog_1>"), word("<dog_2>", layers=28)])
    with pytest.raises(ValueError, match="10 stages and words of 28 layers, which makes 280 prompts to encode, 256"):
        encoded(taught, PROMPT)


# the text encoder of SD2.x


def test_words_of_sd2():
    clip = tiny_clip("sd2")
    taught = with_words(clip, [Word("<dog_1>", {"h": torch.randn(1, 40)})])
    tokens = taught.tokenize("a <dog_1>")
    assert torch.is_tensor(tokens["h"][0][2][0])
    assert not torch.equal(encoded(taught, "a <dog_1>")[0][0], encoded(clip, "a <dog_1>")[0][0])
    assert torch.equal(encoded(taught, "a dog")[0][0], encoded(clip, "a dog")[0][0])
