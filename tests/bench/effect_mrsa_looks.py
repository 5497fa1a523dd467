"""Do references give things a look that no word names, alone and in pairs? Against the prompt alone, same seeds.

    python tests/bench/effect_mrsa_looks.py --cache output/pocket --table tests/bench/results/effect_mrsa_looks.md

For a model whose words leave hues open. Each question asks for things in hues of their own, and each reference shows
its thing in that hue on grey. A picture is right if thing, look and background are: the look alone would reward a halo
or a flood. A held-out thing is called by the known thing that is most like it; held-out looks are hues in which the
model has never seen the thing.
"""

import effects

# blocks, weight, style_fidelity of each arm
SETTINGS = (("published", 3.0, 1.0), ("published", 3.0, 0.0), ("all", 1.1, 0.0))


def setting(text):
    """(blocks, weight, style_fidelity) of "all:1.1:0"."""
    blocks, weight, fidelity = text.split(":")
    return blocks, float(weight), float(fidelity)


def nodes():
    """The nodes that this needs."""
    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
    from pack.nodes.references.references_node import AddReference

    return BoxMask, MultiReferenceSelfAttention, AddReference


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--settings", nargs="+", type=setting, default=SETTINGS, metavar="BLOCKS:WEIGHT:FIDELITY")
    options = effects.parsed(parser)
    import sight
    import torch
    from free import ARC, EVERY
    from questions import hues_for, pairs, singles
    from samples import draw
    from support.models import execute
    from things import HELD_OUT, KIN, KNOWN
    from tints import tinted_world
    from world import one_of

    BoxMask, MRSA, AddReference = nodes()
    model, clip, vae = effects.pocket(options)
    world = tinted_world(options.cache)
    halves = [execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)[0] for x in (0.0, 0.5)]

    def prompted(question, model=model):
        asked = question.prompt(KIN)
        return draw((model, clip, vae), asked, [question.seed], steps=options.steps, cfg=options.cfg)

    @torch.inference_mode()
    def referred(question, hues, blocks, weight, fidelity):
        chain = ()
        for thing, hue, half in zip(question.things, hues, halves, strict=False):
            picture, mask = effects.shown(thing, hue, world, question.seed)
            word = KIN.get(thing, thing)
            said = {"word": word, "prompt": f"{one_of(word)} on a gray background"}
            more = {"region": half} if len(question.things) == 2 else {}
            (chain,) = execute(AddReference, image=picture, mask=mask, references=chain, **said, **more)
        inputs = {"model": model, "clip": clip, "vae": vae, "references": chain}
        settings = {"blocks": blocks, "weight": weight, "style_fidelity": fidelity}
        (patched,) = execute(MRSA, **inputs, **settings)
        return prompted(question, patched)

    def asked(kind, questions, hues_of=hues_for):
        arms = {"prompt only": prompted}
        for blocks, weight, fidelity in options.settings:
            arms[f"{blocks}, weight {weight:g}, style_fidelity {fidelity:g}"] = (
                lambda question, setting=(blocks, weight, fidelity): referred(question, hues_of(question), *setting)
            )

        def said(question, picture, judge):
            return sight.answers(question, picture, judge, hues_of(question))

        effects.compare(options, kind, arms, questions, said)

    def held_out_hues(question):
        g = torch.Generator().manual_seed(question.seed)
        return [ARC[0] + (ARC[1] - ARC[0]) * torch.rand((), generator=g).item()]

    asked("one thing in a look", singles(options.count))
    asked("two things in two looks", pairs(options.count))
    asked("a held-out thing in a look", singles(options.count, things=tuple(HELD_OUT)))
    asked("a thing in a held-out look", singles(options.count, things=tuple(KNOWN)[::EVERY]), held_out_hues)


if __name__ == "__main__":
    main()
