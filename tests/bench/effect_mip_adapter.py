"""Does each of two things get the look of its own reference? MIP-Adapter against a plain IP-Adapter, same seeds.

    python tests/bench/effect_mip_adapter.py --cache output/pocket --table tests/bench/results/effect_mip_adapter.md

Two known things side by side, each with a reference whose hues are turned by an angle of its own, at least a third of
a turn apart. No word says how a thing is coloured. A thing has its own look if its hues are turned within 45 degrees
of its reference, and the other's look if they are nearer to the other's angle. Only colourful things are asked for: a
panda has no hue.
"""

import effects


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    options = effects.parsed(parser)
    import binding
    import judge
    import torch
    from companions import VISION_FILE, load_vision
    from fetch import gather
    from image_adapter import KINDS, file_of
    from looks import COLOURFUL, TURN, TURNS, chroma_of_things
    from questions import pairs
    from safetensors.torch import load_file
    from samples import draw
    from support.models import execute
    from things import KNOWN, WORDS
    from world import load_things, portrait

    from pack.nodes.image_adapters.image_adapter import adapter_from
    from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter
    from pack.nodes.pocket.pocket_model import load_pocket
    from pack.nodes.references.references_node import AddReference

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
        return binding.answers(question, picture, judge, angles(question), own)

    arms = {
        "prompt only": plain,
        "IP-Adapter, all pictures everywhere": lambda question: referred(question, "ip", "joint"),
        "MIP-Adapter's file, all pictures everywhere": lambda question: referred(question, "mip", "joint"),
        "MIP-Adapter": lambda question: referred(question, "mip", "weighted"),
    }
    asked = pairs(options.count, things=colourful)
    effects.compare(options, "two things with turned hues", arms, asked, judge.load(), looks)


if __name__ == "__main__":
    main()
