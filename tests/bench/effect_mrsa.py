"""Do references bring held-out things into the picture, alone and in pairs? Against the prompt alone, same seeds.

    python tests/bench/effect_mrsa.py --cache output/pocket --table tests/bench/results/effect_mrsa.md

The prompt calls each held-out thing by the known thing that is most like it, as users do: "tiger" for the lion. The
judge must see the held-out one; or at least see more of it than of what the word means.
"""

import effects


def main():
    options = effects.parsed(effects.parser(__doc__))
    import torch
    from questions import answers, pairs, singles
    from samples import draw
    from support.models import execute
    from things import HELD_OUT, KIN, WORDS
    from tints import tinted_world
    from world import one_of, portrait

    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
    from pack.nodes.references.references_node import AddReference

    parts, (things, _) = effects.pocket(options), tinted_world(options.cache)
    model, clip, vae = parts
    halves = [execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)[0] for x in (0.0, 0.5)]

    def plain(question):
        return draw(parts, question.prompt(KIN), [question.seed], steps=options.steps, cfg=options.cfg)

    @torch.inference_mode()
    def referred(question, regions=False, **settings):
        chain = ()
        for thing, half in zip(question.things, halves, strict=False):
            picture, mask, colour = portrait(thing, things, seed=question.seed)
            word = KIN[thing]
            said = {"word": word, "prompt": f"{one_of(word)} on {one_of(colour)} background"}
            more = {"region": half} if regions and len(question.things) == 2 else {}
            (chain,) = execute(AddReference, image=picture, mask=mask, references=chain, **said, **more)
        inputs = {"model": model, "clip": clip, "vae": vae, "references": chain}
        (patched,) = execute(MultiReferenceSelfAttention, **inputs, **settings)
        return draw((patched, clip, vae), question.prompt(KIN), [question.seed], steps=options.steps, cfg=options.cfg)

    def said(question, picture, judge):
        """As answers(), and whether the judge sees more of each thing than of what its word means."""
        cells = judge.look(picture.movedim(-1, 1).float()).cells[0, 1:].exp().sum((1, 2))
        more = [cells[WORDS.index(thing)] > cells[WORDS.index(KIN[thing])] for thing in question.things]
        found = answers(question, picture, judge)
        return {"more like it than the word": all(more), **{what: found[what] for what in ("all things", "background")}}

    held = tuple(HELD_OUT)
    arms = {
        "prompt only": plain,
        "references": referred,
        "references, all up, weight 2": lambda question: referred(question, blocks="all up", weight=2.0),
    }
    effects.compare(options, "one thing", arms, singles(options.count, things=held), said)
    arms = {"prompt only": plain, "references with regions": lambda question: referred(question, regions=True)}
    effects.compare(options, "two things", arms, pairs(options.count, things=held), said)


if __name__ == "__main__":
    main()
