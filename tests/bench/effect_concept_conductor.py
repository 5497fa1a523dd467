"""Do several subjects keep apart? Concept Conductor against one prompt, or the same LoRAs stacked; same seeds.

    python tests/bench/effect_concept_conductor.py --table tests/bench/results/effect_concept_conductor.md

Always two subjects side by side, for Concept Conductor each with a prompt of its own in its half.
1. Known things, no LoRA.
2. The same with a layout picture besides, which the plain model draws for the same prompt.
3. Known things in looks of their own, their hues turned, as a user's dog is a dog: a LoRA for each.
4. Held-out things, a LoRA for each (all of tests/pocket/companions/loras). The picture's own prompt has known words.
Stacked: both LoRAs on the model, one prompt that names both.
"""

import re

import effects

NAMED = re.compile(r"(?P<thing>[a-z]+?)(_(?P<turn>\d+))?_lora")


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance_weight with the layout picture")
    options = effects.parsed(parser)
    import binding
    import comfy.sd
    import judge
    import torch
    from fetch import gather
    from looks import TURN, chroma_of_things
    from questions import Question, pairs
    from safetensors.torch import load_file
    from samples import draw, encode
    from support.models import execute
    from things import KIN, KNOWN
    from world import load_things

    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
    from pack.nodes.concept_conductor.concepts_node import AddConcept
    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.pocket.pocket_model import load_pocket

    parts = load_pocket()
    model, clip, vae = parts
    own = chroma_of_things(load_things(gather(options.cache)))
    loras, turns = {}, {}
    for path in sorted((options.companions / "loras").glob("*_lora.safetensors")):
        named = NAMED.fullmatch(path.stem)
        loras[named["thing"]] = load_file(path)
        if named["turn"]:
            turns[named["thing"]] = int(named["turn"]) * TURN
    halves = [execute(BoxMask, x=x, y=0.1, width=0.46, height=0.8)[0] for x in (0.02, 0.52)]

    def taught(base, thing):
        return comfy.sd.load_lora_for_models(base, None, loras[thing], 1.0, 0.0)[0] if thing in loras else base

    def stacked(question):
        both = model
        for thing in question.things:
            both = taught(both, thing)
        return draw((both, clip, vae), question.prompt(), [question.seed], steps=options.steps)

    def prompted(question):
        return draw(parts, question.prompt(), [question.seed], steps=options.steps)

    @torch.inference_mode()
    def conducted(question, layout=False):
        chain = ()
        for thing, half in zip(question.things, halves, strict=True):
            # its word in the place of every subject
            text = Question((thing, thing), question.colour, 0).prompt()
            inputs = {"model": taught(model, thing), "positive": encode(clip, text), "word": thing, "mask": half}
            (chain,) = execute(AddConcept, concepts=chain, **inputs)
        said, text = {"guidance_weight": 0.0}, question.prompt(KIN)
        if layout:
            plain = draw(parts, text, [question.seed], steps=options.steps)
            said = {"guidance_weight": options.guidance, "layout_image": plain, "vae": vae}
            said["layout_positive"] = encode(clip, text)
        (patched,) = execute(ConceptConductor, model=model, concepts=chain, **said)
        return draw((patched, clip, vae), text, [question.seed], steps=options.steps)

    def looks(question, picture, judge):
        return binding.answers(question, picture, judge, [turns[thing] for thing in question.things], own)

    sees = judge.load()
    free = tuple(thing for thing in KNOWN if thing not in turns)
    arms = {"one prompt": prompted, "Concept Conductor, masks": conducted}
    effects.compare(options, "two known things", arms, pairs(options.count, things=free), sees)
    arms = {"one prompt": prompted, "Concept Conductor, layout": lambda question: conducted(question, layout=True)}
    effects.compare(options, "two things and a layout picture", arms, pairs(options.count, things=free), sees)
    arms = {"LoRAs stacked": stacked, "Concept Conductor, masks": conducted}
    known = pairs(options.count, things=tuple(turns))
    effects.compare(options, "two things in taught looks", arms, known, sees, looks)
    held = pairs(options.count, things=tuple(thing for thing in loras if thing not in turns))
    effects.compare(options, "two taught held-out things", arms, held, sees)


if __name__ == "__main__":
    main()
