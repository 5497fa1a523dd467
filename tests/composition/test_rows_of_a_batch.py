"""What is given per picture of a batch is read per row: each picture is as it is alone."""

import pytest
import torch
from composition.foreign import by_setter
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.image_prompts import TinyWords, with_pictures
from support.models import conditioning, sample, tiny_model
from support.references import draw, prompt, references, with_references
from support.thorough import few_of

from pack.nodes.host.attach import attach
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.reference_attention import entry_reader
from pack.nodes.text_contexts.context_router import ContextRouter

# A row alone differs from itself in a batch by rounding, which the tiny UNets amplify.
ALONE = 4e-3


@pytest.fixture
def model():
    return tiny_model("sd15")


def batch_of(*conds):
    """One conditioning with a row per text, as prompt schedules make them."""
    return conditioning(torch.cat([cond[0][0] for cond in conds]), **conds[0][0][1])


def texts(model, tokens=7):
    """Two positives and two negatives."""
    return [[prompt(model, 100 * side + number, tokens) for number in (1, 2)] for side in (1, 2)]


def windows(*parts):
    """The frames of a batch by turns, as packs do that sample films longer than the model can."""

    def run(executor, base, conds, x, sigma, options):
        out = [torch.zeros_like(x) for _ in conds]
        for rows in parts:
            for whole, part in zip(out, executor(base, conds, x[rows], sigma[rows], options)):
                whole[rows] = part
        return out

    return by_setter("add_wrapper_with_key", "calc_cond_batch", "windows", run)


def with_their_texts(*parts):
    """The same, where each part takes its frames' own texts along, as the host's context windows do."""

    def cut(entry, rows):
        text = entry["model_conds"]["c_crossattn"]
        if len(text.cond) == 1:
            return entry
        return {**entry, "model_conds": {**entry["model_conds"], "c_crossattn": text._copy_with(text.cond[rows])}}

    def run(executor, base, conds, x, sigma, options):
        out = [torch.zeros_like(x) for _ in conds]
        for rows in parts:
            shown = [[cut(entry, rows) for entry in entries] for entries in conds]
            for whole, part in zip(out, executor(base, shown, x[rows], sigma[rows], options)):
                whole[rows] = part
        return out

    return by_setter("add_wrapper_with_key", "calc_cond_batch", "windows", run)


def alone(executor, base, conds, x, sigma, options):
    """Each conditioning in a call of its own."""
    only = [[cond if i == n else [] for i, cond in enumerate(conds)] for n in range(len(conds))]
    return [executor(base, lists, x, sigma, options)[n] for n, lists in enumerate(only)]


NOISE = draw(4, 4, 8, 8, seed=8)


def row_by_row(patched, positives, negatives, rows):
    noise = NOISE[:rows]
    together = sample(patched, batch_of(*positives), batch_of(*negatives), latent=(rows, 4, 8, 8), noise=noise, steps=2)
    for row in range(rows):
        texts = positives[row % len(positives)], negatives[row % len(negatives)]
        one = sample(patched, *texts, noise=noise[row : row + 1], steps=2)
        assert differ(together[row : row + 1], one) < ALONE, row
    return together


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("fidelity", few_of([0.0, 0.5, 1.0], 0.5))
def test_references(model, fidelity, cache_mb):
    ours = with_references(model, style_fidelity=fidelity, cache_mb=cache_mb)
    together = row_by_row(ours, *texts(model), 2)
    # far more than rounding: what the second row would be with the first one's negative
    (_, positive), (negative, _) = texts(model)
    assert differ(together[1:], sample(ours, positive, negative, noise=NOISE[1:2], steps=2)) > 10 * ALONE


def test_references_of_two_nodes(model):
    first = with_references(model, references(1), style_fidelity=0.5, cache_mb=0)
    row_by_row(with_references(first, references(1), style_fidelity=0.0), *texts(model), 2)


def test_equal_texts_share_one_pass(model, monkeypatch):
    seen, real = [], entry_reader.caught

    def watched(call, x, *rest):
        seen.append(len(x))
        return real(call, x, *rest)

    monkeypatch.setattr(entry_reader, "caught", watched)
    positives, negatives = texts(model)
    patched = with_references(model, references(3), style_fidelity=0.5, cache_mb=0)
    sample(patched, batch_of(*positives), batch_of(*negatives), latent=(4, 4, 8, 8), steps=1)
    # of two negatives in one pass, and of the references' own prompts
    assert sorted(seen) == [3, 6]
    seen.clear()
    sample(patched, positives[0], batch_of(negatives[0], negatives[0]), latent=(4, 4, 8, 8), steps=1)
    assert seen == [3, 3]


@pytest.mark.parametrize("source", ["words", "prompt"])
def test_image_prompts(model, source):
    clip = TinyWords(model)
    positives = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a cat hat", "b cat hat")]
    negatives = [prompt(model, number, 77) for number in (1, 2)]
    inputs = {"phrase_source": "prompt", "prompt": "a cat hat"} if source == "prompt" else {}
    row_by_row(with_pictures(model, words=("cat", "hat"), **inputs), positives, negatives, 4)


def test_concepts(model):
    positives, negatives = ([prompt(model, n + row) for row in (0, 1)] for n in (310, 410))
    (first, second) = texts(model)
    chain = random_concepts(model, 2, positive=[batch_of(*positives)] * 2, negative=[batch_of(*negatives)] * 2)
    noise = NOISE[:2]
    together = sample(
        conducted(model, chain), batch_of(*first), batch_of(*second), latent=(2, 4, 8, 8), noise=noise, steps=2
    )
    for row in range(2):
        chain = random_concepts(model, 2, positive=[positives[row]] * 2, negative=[negatives[row]] * 2)
        one = sample(conducted(model, chain), first[row], second[row], noise=noise[row : row + 1], steps=2)
        assert differ(together[row : row + 1], one) < ALONE


def layered(model, seed):
    """A prompt with a context for each layer, as ED-LoRA words give it."""
    contexts = draw(16, 7, 32, seed=seed)
    return conditioning(contexts[:1], **{LAYERS: contexts, PLAIN: contexts[:1]})


def test_prompts_for_each_layer(model):
    """A batch keeps the layers of its first prompt; they are not those of the second."""
    first, second = texts(model)
    row_by_row(attach(model, ContextRouter(("ED-LoRA",))), [layered(model, 1), first[1]], [second[0], second[1]], 4)
    ours = with_references(attach(model, ContextRouter(("ED-LoRA",))), style_fidelity=0.5)
    row_by_row(ours, [first[0], first[1]], [layered(model, 2), second[1]], 2)


def test_concepts_with_prompts_for_each_layer(model):
    prompts = layered(model, 3), prompt(model, 320)
    (first, second) = texts(model)
    noise = NOISE[:2]
    patched = conducted(model, random_concepts(model, 1, positive=[batch_of(*prompts)]))
    together = sample(patched, first[0], second[0], latent=(2, 4, 8, 8), noise=noise, steps=2)
    for row in range(2):
        patched = conducted(model, random_concepts(model, 1, positive=[prompts[row]]))
        one = sample(patched, first[0], second[0], noise=noise[row : row + 1], steps=2)
        assert differ(together[row : row + 1], one) < ALONE


PARTS = {"unequal": ([0, 1, 2], [3]), "equal": ([0, 1], [2, 3])}


@pytest.mark.parametrize("split", few_of([False, True], False), ids=["together", "split"])
@pytest.mark.parametrize("parts", few_of(PARTS, "unequal"))
@pytest.mark.parametrize("what", ["MRSA", "MIP-Adapter", "MIP-Adapter in the prompt", "concepts"])
def test_windows(model, what, parts, split):
    """One prompt, and frames by turns: each as without windows."""
    inputs = {"phrase_source": "prompt", "prompt": "a cat hat"}
    ours = {
        "MRSA": lambda m: with_references(m, style_fidelity=0.5),
        "MIP-Adapter": with_pictures,
        "MIP-Adapter in the prompt": lambda m: with_pictures(m, words=("cat", "hat"), **inputs),
        "concepts": conducted,
    }[what]
    cut = windows(*PARTS[parts])
    conds = prompt(model, 100, 77), prompt(model, 200, 77)
    given = {"latent": (4, 4, 8, 8), "noise": NOISE, "steps": 2}
    patched = ours(model)
    wanted = sample(patched, *conds, **given)
    patched = cut(patched)
    if split:
        patched = by_setter("add_wrapper_with_key", "calc_cond_batch", "alone", alone)(patched)
    assert differ(sample(patched, *conds, **given), wanted) < ALONE


@pytest.mark.parametrize("parts", [([0, 1], [2, 3]), ([0], [1], [2], [3])], ids=["of two", "of one"])
def test_references_in_windows_whose_frames_read_one_text_each(model, parts):
    """A window may show one text alone, and the next one another of the same prompt."""
    positive, (first, second) = prompt(model, 100), texts(model)[1]
    ours = with_references(model, style_fidelity=0.5)
    negatives = batch_of(first, first, second, second)
    given = {"latent": (4, 4, 8, 8), "noise": NOISE, "steps": 2}
    together = sample(with_their_texts(*parts)(ours), positive, negatives, **given)
    ends = ((0, first), (3, second))
    wanted = [sample(ours, positive, one, noise=NOISE[row : row + 1], steps=2) for row, one in ends]
    assert differ(together[[0, 3]], torch.cat(wanted)) < ALONE


TOGETHER = {
    # one node takes all rows together, the other those of each text
    "texts": ({}, {"reference_prompt": "target"}),
    "another UNet": ({"reference_model": True, "style_fidelity": 0.0}, {"style_fidelity": 0.0}),
}


@pytest.mark.parametrize("which", TOGETHER)
def test_nodes_that_take_other_rows_together_share_one_softmax(model, which):
    first, second = ({**inputs, "cache_mb": 0} for inputs in TOGETHER[which])
    if "reference_model" in first:
        first["reference_model"] = tiny_model("sd15", seed=3)
    one = with_references(model, references(1), **first)
    both = with_references(one, references(2)[1:], **second)
    texts_of_rows = texts(model)
    together = row_by_row(both, *texts_of_rows, 2)
    conds = (batch_of(*several) for several in texts_of_rows)
    of_one = sample(one, *conds, latent=(2, 4, 8, 8), noise=NOISE[:2], steps=2)
    assert all(differ(*rows) > 10 * ALONE for rows in zip(together, of_one, strict=True))
