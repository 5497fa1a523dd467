"""Whether the prompt in which words were looked up is the one that is sampled, as far as their contexts prove it.

The text encoders are causal: a row tells of its own token and of those before it. So of two contexts by one encoder the
start tokens' rows are equal, the last rows are equal if all tokens are, whatever their weights, and the first rows that
differ stand at the first other token. Contexts of another encoder, scaled or emptied ones prove nothing.
"""

import itertools
import weakref
from dataclasses import dataclass

import torch

from ..host.clip_text import encoded
from ..host.graph_texts import texts_of_graph
from ..host.paired_rows import taken_apart
from ..host.rows import prompts_of
from ..host.token_runs import PART_TOKENS, equal_tokens, tokens_in
from .phrases import LONGEST

# Rows are equal that differ by no more than this share: half precision lies far below, another token far above.
EQUAL = 0.01
# So many texts of the graph are tried, and so many words are quoted.
TRIED, QUOTED_WORDS = 16, 4
# {CLIP: {text of a graph: its context}}
_TRIED = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class LookedUp:
    """A prompt as a CLIP reads it."""

    text: str
    context: torch.Tensor  # (1, T, D)
    clip: weakref.ref


def looked_up(clip, text):
    """The LookedUp of a prompt."""
    return LookedUp(text, _context(clip, text), weakref.ref(clip))


def tell_of_another_text(run, label, prompts):
    """Says in a run that positive prompts of it are proved to be other texts than the LookedUps `prompts` of a node.

    Returns the uuids of those entries beside which another one is sampled that may be the text: words have no known
    place in them.
    """
    entries = prompts_of(run.conds())
    elsewhere = None
    for prompt in prompts:
        tokens = [_first_other(prompt, entry) for entry in entries]
        others = {entry.get("uuid") for entry, token in zip(entries, tokens, strict=True) if token is not None}
        if entries and None not in tokens:
            _tell_of_none(run, label, prompt, entries[0], tokens[0])
            others = set()
        elif others:
            run.tell(
                f"{label}: {len(entries)} prompts are sampled, and prompt is one of them; in other texts the words are "
                'read by themselves, not where they stand, as phrase_source "standalone" does everywhere'
            )
        elsewhere = others if elsewhere is None else elsewhere & others
    return elsewhere or set()


def _first_other(prompt, entry):
    """As `first_other_token`, of a LookedUp and an entry of the guider's."""
    return first_other_token(prompt.context, taken_apart(entry.get("cross_attn"))[0])


def _tell_of_none(run, label, prompt, entry, token):
    """Says that no prompt of a run is the LookedUp; token: the first one of an entry that differs."""
    clip = prompt.clip()
    context = taken_apart(entry.get("cross_attn"))[0]
    known = clip and _known_text(clip, prompt.text, context, token)
    mine, theirs = _differences(prompt.text, token, clip, known)
    run.tell(
        f"{label}: prompt is not the prompt that is sampled: they differ from {mine} on{theirs}; copy the sampled "
        "prompt into prompt, or the words' places are read from the wrong text"
    )


def first_other_token(mine, theirs):
    """The number of the first token in which two contexts (b, T, D) are proved to differ, None if none is."""
    if theirs is None or theirs.ndim != 3 or mine.shape[-1] != theirs.shape[-1]:
        return None
    rows = min(mine.shape[1], theirs.shape[1])
    if not rows or mine.shape[1] % PART_TOKENS or theirs.shape[1] % PART_TOKENS:
        return None
    mine, theirs = (t[0, :rows].detach().float().cpu().unflatten(0, (-1, PART_TOKENS)) for t in (mine, theirs))
    other = (mine - theirs).norm(dim=-1) > EQUAL * mine.norm(dim=-1)
    if other[:, 0].any():
        return None
    for number, part in enumerate(other):
        if part[-1]:
            # a row by itself is a token of another weight
            first = next(i for i in range(1, PART_TOKENS) if part[i] and part[min(i + 1, PART_TOKENS - 1)])
            return number * LONGEST + first - 1
    return None


def _differences(text, token, clip, known):
    """(words of a text from where it differs, what to say of those of the sampled text, if that is known).

    token: the number of its first token that differs; clip: None if it is gone.
    """
    mine = text.split()
    if clip is None:
        return f"token {token + 1}", ""
    if known is None:
        ends = (sum(map(len, tokens_in(clip, " ".join(mine[: i + 1])))) for i in range(len(mine)))
        at = next((i for i, end in enumerate(ends) if end > token), len(mine))
        return _quoted(mine[at:]), ""
    theirs = known.split()
    same = [one == other for one, other in zip(mine, theirs, strict=False)]
    at = same.index(False) if False in same else len(same)
    return _quoted(mine[at:]), f", where the sampled one has {_quoted(theirs[at:])}"


def _known_text(clip, mine, context, token):
    """The text of the running graph, another than mine, that gives a context; None if none is known to.

    token: the number of the first token in which that context differs from mine.
    """
    number, place = divmod(token, LONGEST)
    begin = _begin(clip, mine, number, place)
    texts = [text for text in texts_of_graph() if text.strip() and text != mine]
    alike = (text for text in texts if equal_tokens(_begin(clip, text, number, place), begin))
    for text in itertools.islice(alike, TRIED):
        made = _tried(clip, text)
        if made.shape == context.shape and (made.cpu() - context.cpu()).norm() <= EQUAL * made.cpu().norm():
            return text
    return None


def _begin(clip, text, number, place):
    """The tokens of a text before one place in one of its parts."""
    parts = tokens_in(clip, text)
    before = [*parts[:number], *(part[:place] for part in parts[number : number + 1])]
    return [token for part in before for token in part]


def _tried(clip, text):
    """The context of a text; the next run of the graph may well ask for it again."""
    known = _TRIED.setdefault(clip, {})
    if text not in known:
        known[text] = _context(clip, text)
    for old in list(known)[: -4 * TRIED]:
        del known[old]
    return known[text]


def _context(clip, text):
    return taken_apart(encoded(clip, text)[0])[0]


def _quoted(words):
    more = " ..." if len(words) > QUOTED_WORDS else ""
    return f'"{" ".join(words[:QUOTED_WORDS])}{more}"' if words else "its end"
