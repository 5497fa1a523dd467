"""CLIPs for negative prompt weights: two rows for each token, which a patch of the MODEL takes apart.

Without a negative weight nothing changes by a bit, whatever of us reads that CLIP's prompts.
"""

import pytest
import torch
from composition.foreign import by_setter
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.image_prompts import TinyWords, with_pictures
from support.models import conditioning, execute, sample, tiny_model
from support.npnets import small_weights
from support.references import TinyClip, draw, prompt, with_references

from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseNode
from pack.nodes.golden_noise.noise_pairs import collect_pairs, read_pairs
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.golden_noise.redenoised import RedenoiseSettings
from pack.nodes.host import messages
from pack.nodes.host.paired_rows import taken_apart

TEXTS = "a cat with a hat", "bad"
APART = by_setter("set_model_attn2_patch", lambda n, k, v, options: (n, k[:, 0::2], v[:, 1::2]))


def paired(text):
    ((tensor, values),) = text
    return [[tensor.repeat_interleave(2, 1), values]]


class Doubled(TinyWords):
    def encode_from_tokens_scheduled(self, tokens):
        return paired(super().encode_from_tokens_scheduled(tokens))


class DoubledClip(TinyClip):
    def encode_from_tokens_scheduled(self, tokens):
        return paired(super().encode_from_tokens_scheduled(tokens))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def model(request):
    return tiny_model(request.param)


def texts_of(clip, longer=""):
    """Positive and negative, as a CLIP gives them."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (TEXTS[0] + longer, TEXTS[1])]


@pytest.mark.parametrize("inputs", [{}, {"phrase_source": "prompt", "prompt": TEXTS[0]}], ids=["alone", "prompt"])
def test_image_prompts(model, inputs):
    """Words alone are read by MIP-Adapter's own CLIP, places in the prompt in what is sampled."""
    plain, double = TinyWords(model), Doubled(model)
    wanted = sample(with_pictures(model, clip=plain, **inputs), *texts_of(plain))
    assert differ(wanted, sample(model, *texts_of(plain))) > 1e-2
    for clip in (plain, double):
        for patched in (
            APART(with_pictures(model, clip=clip, **inputs)),
            with_pictures(APART(model), clip=clip, **inputs),
        ):
            assert torch.equal(sample(patched, *texts_of(double)), wanted)


def test_places_in_a_prompt_beside_a_longer_one(model):
    """The host repeats the shorter of two prompts: two rows for each token are told from two of the whole."""
    plain, inputs = TinyWords(model), {"phrase_source": "prompt", "prompt": TEXTS[0]}
    positive, (long,) = texts_of(plain)
    negative = [[torch.cat([long[0], draw(*long[0].shape, seed=9)], 1), long[1]]]
    wanted = sample(with_pictures(model, clip=plain, **inputs), positive, negative)
    ours = with_pictures(APART(model), clip=plain, **inputs)
    assert torch.equal(sample(ours, paired(positive), paired(negative)), wanted)


@pytest.mark.parametrize("fidelity", [1.0, 0.0])
def test_references(model, fidelity):
    texts = prompt(model, 100, 77), prompt(model, 200, 77)
    wanted = sample(with_references(model, clip=TinyClip(model, 77), style_fidelity=fidelity), *texts)
    patched = with_references(APART(model), clip=DoubledClip(model, 77), style_fidelity=fidelity)
    assert torch.equal(sample(patched, *map(paired, texts)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [False, True])
def test_concepts(layout):
    """Beside another patch of the cross-attention, so that both runs divide their rows into passes alike."""
    model = tiny_model("sd15")
    idle = by_setter("set_model_attn2_patch", lambda n, k, v, options: (n, k, v))
    own = [prompt(model, seed, 77) for seed in (300, 301)]
    texts = prompt(model, 100, 77), prompt(model, 200, 77)
    inputs = {"layout": layout, "guidance_end": 1.0}

    def chain(form):
        return random_concepts(model, positive=[form(text) for text in own], negative=[None, None])

    wanted = sample(idle(conducted(model, chain(list), **inputs)), *texts)
    ours = sample(APART(conducted(model, chain(paired), **inputs)), *map(paired, texts))
    assert torch.equal(ours, wanted)


# Golden Noise


@pytest.fixture(scope="module")
def net():
    return net_from(small_weights(prompt=32), "small")


class Drawn:
    seed = 7

    def generate_noise(self, latent):
        return draw(*latent["samples"].shape, seed=7)


def golden(net, text, **inputs):
    node, _ = execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=text, **inputs)
    return node.generate_noise({"samples": torch.zeros(1, 4, 8, 8)})


@pytest.mark.parametrize("long_prompt", ["truncate", "average", "recurse"])
def test_golden_noise(net, long_prompt, monkeypatch):
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    for tokens in (77, 154):
        text = conditioning(draw(1, tokens, 32, seed=1))
        assert torch.equal(
            golden(net, paired(text), long_prompt=long_prompt), golden(net, text, long_prompt=long_prompt)
        )
    assert not said
    ((rows, values),) = paired(text)
    rows[:, 5] *= -1
    assert torch.equal(golden(net, [[rows, values]]), golden(net, text))
    assert said == ["conditioning has negative prompt weights, which NPNet does not know: it reads them as positive"]


def test_noise_pairs(tmp_path, monkeypatch):
    """The kept prompt is one that an NPNet reads, whatever CLIP encoded it; signs make another pair."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    model, settings = tiny_model(), RedenoiseSettings(5.5, 1.0, 10, 1)
    plain = prompt(model, 100, 77), prompt(model, 200, 77)
    ((rows, values),) = paired(plain[0])
    rows[:, 5] *= -1
    made = {}
    for name, patched, texts in (
        ("plain", model, plain),
        ("paired", APART(model), tuple(map(paired, plain))),
        ("negative", APART(model), ([[rows, values]], paired(plain[1]))),
    ):
        assert collect_pairs(patched, *texts, tmp_path / name, seeds=[1], size=(64, 64), settings=settings) == 1
        ((_, golden, text),) = read_pairs(tmp_path / name)
        made[name] = golden, text
        assert torch.equal(text, plain[0][0][0])
    assert torch.equal(made["paired"][0], made["plain"][0])
    assert not torch.equal(made["negative"][0], made["plain"][0])


# what is told apart


def test_ordinary_contexts_stay_whole():
    row = draw(1, 77, 8, seed=1)
    for context in (
        row,
        draw(2, 154, 8, seed=2),
        row.repeat(1, 2, 1),
        torch.zeros(1, 154, 8),
        row.repeat_interleave(2, 1)[:, :80],
    ):
        assert taken_apart(context) == (context, None) or taken_apart(context)[0] is context
    assert taken_apart(None) == (None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pairs_are_taken_apart(dtype):
    rows = draw(2, 77, 8, seed=1)
    pairs = rows.repeat_interleave(2, 1)
    keys, values = taken_apart(pairs.to(dtype))
    assert torch.equal(keys, rows.to(dtype)) and values is None
    pairs[1, 7] *= -1
    # as the host repeats it beside a longer prompt
    keys, values = taken_apart(pairs.repeat(1, 2, 1).to(dtype))
    assert torch.equal(keys, rows.repeat(1, 2, 1).to(dtype))
    rows[1, 3] *= -1
    assert torch.equal(values, rows.repeat(1, 2, 1).to(dtype))
