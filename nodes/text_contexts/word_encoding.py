"""What a CLIP with words gives for a prompt: Contexts, where the words in it vary."""

from ..host.contexts import FixedContexts, StagedContexts
from ..host.layered_prompts import LAYERS, PLAIN, TAUGHT
from .made_contexts import made_contexts
from .readings import BORDERS, readings_of, rolled_up, unrolled, words_in
from .word_tokenizer import MAKER, RANK


def encoded_with_words(model, network, encode, tokens):
    """What the host's encode_token_weights returns, with Contexts where the words of the prompt vary.

    model: the CLIP's network, which `encode` calls; network: the one that the host loads; encode: its own way; tokens:
    {"l": [[(token, weight, ...), ...], ...], "g": ...}. Raises ValueError for words of different numbers of layers in
    one prompt, and for too many ways to read it.
    """
    words = [token for lists in tokens.values() for part in lists for token in words_in(part)]
    readings = readings_of(words)
    made = any(hasattr(word, MAKER) for word in words)
    if len(readings) == 1 or made:
        out = encode(tokens)
        if made:
            out = _with_extra(out, {LAYERS: made_contexts(network, tokens, readings), PLAIN: out[0]})
        elif words:
            out = out[0], out[1], {**(out[2] if len(out) > 2 else {}), TAUGHT: True}
        return pooled_at_word(model, tokens, out)
    # encoders may hold a prompt in different numbers of parts; the host cuts to the fewest
    lists = [several[: min(map(len, tokens.values()))] for several in tokens.values()]
    varies = [any(words_in(part) for part in parts) for parts in zip(*lists, strict=True)]
    flat = {name: unrolled(several, varies, readings) for name, several in tokens.items()}
    out = encode(flat)
    rolled = rolled_up(out[0].unflatten(1, (-1, len(lists[0][0])))[0], lists[0], varies, readings)
    extra = {LAYERS: contexts_of_readings(rolled, readings), PLAIN: rolled[:1]}
    return pooled_at_word(model, tokens, _with_extra((rolled[:1], *out[1:]), extra))


def _with_extra(out, extra):
    contexts, more = extra[LAYERS], {}
    if contexts.models:
        # the host loads them with the UNet
        more["additional_models"] = list(contexts.models)
    if isinstance(contexts, FixedContexts) and contexts.values is None:
        more[LAYERS] = contexts.keys
    return out[0], out[1], {**(out[2] if len(out) > 2 else {}), **extra, **more}


def contexts_of_readings(rolled, readings):
    """The Contexts of (readings, T, D)."""
    sides = 1 + readings[-1].keys
    found = rolled.unflatten(0, (1 + readings[0].stage, -1, sides)).flip(0)
    keys, values = found[:, :, -1], found[:, :, 0] if sides > 1 else None
    if len(keys) > 1:
        return StagedContexts(keys, BORDERS, values)
    return FixedContexts(keys[0], None if values is None else values[0])


def pooled_at_word(model, tokens, out):
    """The output with SDXL's pooled text read at the word that pools, if the prompt holds one."""
    encoder = getattr(model, "clip_g", None)
    first = tokens.get("g", [[]])[0] if encoder is not None else []
    ranks = [getattr(token, RANK, -1) for token, *_ in first]
    if max(ranks, default=-1) < 0:
        return out
    layer = encoder.layer, encoder.layer_idx
    encoder.set_clip_options({"layer": None})
    try:
        # the last hidden state after the final norm, at the first place of the word that was added last
        hidden = encoder.encode([[token for token, *_ in first]])[0]
    finally:
        encoder.layer, encoder.layer_idx = layer
    pooled = hidden[:, ranks.index(max(ranks))]
    if encoder.return_projected_pooled:
        pooled = encoder.transformer.text_projection(pooled)
    return out[0], pooled.float().to(out[0].device), *out[2:]
