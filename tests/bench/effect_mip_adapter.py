"""Does each of two things get the look of its own reference? MIP-Adapter against a plain IP-Adapter, same seeds.

    python tests/bench/effect_mip_adapter.py --cache output/pocket --table tests/bench/results/effect_mip_adapter.md

Two known things side by side, each with a reference whose hues are turned by an angle of its own, at least a third of
a turn apart. No word says how a thing is coloured. A thing has its own look if its hues are turned within 45 degrees
of its reference, and the other's look if they are nearer to the other's angle. Only colourful things are asked for: a
panda has no hue.
"""

import math

import effects

NEAR = math.pi / 4


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    options = effects.parsed(parser)
    import judge
    import torch
    from companions import VISION_FILE, load_vision
    from fetch import gather
    from image_adapter import KINDS, file_of
    from looks import COLOURFUL, TURN, TURNS, apart, chroma_in, chroma_of_things
    from questions import answers, pairs
    from safetensors.torch import load_file
    from samples import draw
    from things import KNOWN, WORDS
    from tiny import execute
    from world import load_things, portrait

    from pack.nodes.host.image_adapter import adapter_from
    from pack.nodes.host.pocket import load_pocket
    from pack.nodes.mip_adapter import MIPAdapter
    from pack.nodes.references import AddReference

    parts, things = load_pocket(), load_things(gather(options.cache))
    model, clip, vae = parts
    own = chroma_of_things(things)
    colourful = tuple(word for word in KNOWN if own[WORDS.index(word)].abs() > COLOURFUL)
    eyes = load_vision(options.companions / VISION_FILE)
    adapters = {kind: adapter_from(load_file(options.companions / file_of(kind)), f"{kind}_adapter") for kind in KINDS}

    def angles(question):
        """The two turns of a question, in radians."""
        g = torch.Generator().manual_seed(question.seed)
        first = int(torch.randint(TURNS, (), generator=g))
        second = first + int(torch.randint(TURNS // 3, 2 * TURNS // 3 + 1, (), generator=g))
        return [TURN * (turn % TURNS) for turn in (first, second)]

    def plain(question):
        return draw(parts, question.prompt(), [question.seed], steps=options.steps)

    @torch.inference_mode()
    def referred(question, kind, merge):
        chain = ()
        for thing, angle in zip(question.things, angles(question), strict=True):
            picture, mask, _ = portrait(thing, things, seed=question.seed, turn=angle)
            (chain,) = execute(AddReference, image=picture, mask=mask, references=chain, word=thing)
        inputs = {"model": model, "clip": clip, "clip_vision": eyes, "references": chain, "scale": options.scale}
        (patched,) = execute(MIPAdapter, adapter=adapters[kind], merge=merge, **inputs)
        return draw((patched, clip, vae), question.prompt(), [question.seed], steps=options.steps)

    def looks(question, picture, judge):
        """As answers(), and whose look each half shows; nothing there shows nobody's."""
        wanted, background = angles(question), picture[0, :2, :2].mean((0, 1))
        seen = []
        for k, thing in enumerate(question.things):
            half = torch.zeros(picture.shape[1:3])
            half[:, k * 64 : k * 64 + 64] = 1
            found = chroma_in(picture[0].float(), background, half)
            turn = (found / own[WORDS.index(thing)]).angle().item()
            there = bool(found.abs() > 0)
            seen.append([apart(turn, angle) if there else math.inf for angle in (wanted[k], wanted[1 - k])])
        return {
            "both have their own look": all(mine < NEAR for mine, _ in seen),
            "one has the other's look": any(other < mine for mine, other in seen),
            "background": answers(question, picture, judge)["background"],
        }

    arms = {
        "prompt only": plain,
        "IP-Adapter, all pictures everywhere": lambda question: referred(question, "ip", "joint"),
        "IP-Adapter, weighted merge": lambda question: referred(question, "ip", "weighted"),
        "MIP-Adapter": lambda question: referred(question, "mip", "weighted"),
    }
    asked = pairs(options.count, things=colourful)
    effects.compare(options, "two things with turned hues", arms, asked, judge.load(), looks)


if __name__ == "__main__":
    main()
