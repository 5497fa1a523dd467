"""Do several subjects keep apart? Concept Conductor against one prompt, or the same LoRAs stacked; same seeds.

    python tests/bench/effect_concept_conductor.py --table tests/bench/results/effect_concept_conductor.md

Always two subjects side by side, for Concept Conductor each with a prompt of its own in its half.
1. Known things, no LoRA.
2. The same with a layout picture, which the plain model draws for the same prompt. Masks come from Layout Mask, at a
   point of each thing in that picture, with few clusters: this model's maps have 8 x 8 places.
3. Known things in looks of their own, as a user's dog is a dog: a LoRA for each, which knows the thing in one hue.
4. The same thing twice, in two such looks, as two dogs of one user.
5. Held-out things, a LoRA for each, where --companions has two or more: the pack comes with the lion's alone, and
   tests/pocket/concept.py trains others. The picture's own prompt has known words.
Stacked: both LoRAs on the model, one prompt that names both. Masks as they come adapt to the shapes that emerge; kept
ones do not.
"""

import itertools
import math
import re

import effects

NAMED = re.compile(r"(?P<thing>[a-z]+?)(_(?P<hue>\d+))?_lora")
KEPT = {"refine_start": 1.0, "refine_end": 0.0}
CLUSTERS, MATCHED = 3, 0.7


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--guidance", type=float, default=10.0, help="guidance_weight with the layout picture")
    options = effects.parsed(parser, "loras/*_lora.safetensors")
    import comfy.sd
    import sight
    import torch
    from questions import Question, pairs, seen
    from safetensors.torch import load_file
    from samples import draw, encode
    from support.models import execute
    from things import KIN, KNOWN

    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
    from pack.nodes.concept_conductor.concepts_node import AddConcept
    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.masks.layout_mask_node import LayoutMask

    parts = effects.pocket(options)
    model, clip, vae = parts
    # {thing: [(hue or None, LoRA)]}
    loras = {}
    for path in sorted((options.companions / "loras").glob("*_lora.safetensors")):
        named = NAMED.fullmatch(path.stem)
        hue = math.radians(int(named["hue"])) if named["hue"] else None
        loras.setdefault(named["thing"], []).append((hue, load_file(path)))
    looks = {thing: found for thing, found in loras.items() if found[0][0] is not None}
    judge = effects.judge_of(options)
    halves = [execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)[0] for x in (0.0, 0.5)]

    def of(question):
        """(hue, LoRA) of each thing of a question; of one that stands there twice, the first and the second."""
        times = [question.things[:i].count(thing) for i, thing in enumerate(question.things)]
        return [loras.get(t, [(None, None)])[n] for t, n in zip(question.things, times, strict=True)]

    def taught(base, lora):
        return base if lora is None else comfy.sd.load_lora_for_models(base, None, lora, 1.0, 0.0)[0]

    def drawn(question, patched, text=None):
        asked = question.prompt() if text is None else text
        return draw((patched, clip, vae), asked, [question.seed], steps=options.steps, cfg=options.cfg)

    def stacked(question):
        both = model
        for _, lora in of(question):
            both = taught(both, lora)
        return drawn(question, both)

    def prompted(question):
        return drawn(question, model)

    def pointed(question, layout, positive):
        """A mask for each thing, from a point of it in the layout picture; where it is not, from its half's middle."""
        ((_, _, places),) = seen(layout, judge)
        masks = []
        for thing, x in zip(question.things, (0.25, 0.75), strict=True):
            point = dict(zip("xy", places.get(thing, (x, 0.5)), strict=True))
            shown = {"model": model, "vae": vae, "layout_image": layout, "layout_positive": positive}
            masks.append(execute(LayoutMask, clusters=CLUSTERS, **shown, **point)[0])
        return masks

    @torch.inference_mode()
    def conducted(question, layout=False, **said):
        masks, text = halves, question.prompt(KIN)
        settings = {"guidance_weight": 0.0}
        if layout:
            plain, positive = drawn(question, model, text), encode(clip, text)
            settings = {"guidance_weight": options.guidance, "layout_image": plain, "vae": vae}
            settings["layout_positive"] = positive
            masks = pointed(question, plain, positive)
        chain = ()
        for thing, (_, lora), mask in zip(question.things, of(question), masks, strict=True):
            # its word in the place of every subject
            asked = Question((thing, thing), question.colour, 0).prompt()
            inputs = {"model": taught(model, lora), "positive": encode(clip, asked), "word": thing, "mask": mask}
            (chain,) = execute(AddConcept, concepts=chain, **inputs)
        (patched,) = execute(ConceptConductor, model=model, concepts=chain, **settings, **said)
        return drawn(question, patched, text)

    def looking(question, picture, judge):
        return sight.answers(question, picture, judge, [hue for hue, _ in of(question)])

    def kept(question):
        return conducted(question, **KEPT)

    masks = {"Concept Conductor, masks": conducted, "Concept Conductor, masks kept": kept}
    free = tuple(thing for thing in KNOWN if thing not in looks)
    arms = {"one prompt": prompted, **masks}
    effects.compare(options, "two known things", arms, pairs(options.count, things=free))
    pulled = f"Concept Conductor, layout, guidance_weight {options.guidance:g}"
    arms = {
        "one prompt": prompted,
        f"{pulled}, masks": lambda question: conducted(question, layout=True),
        f"{pulled}, masks kept": lambda question: conducted(question, layout=True, **KEPT),
        f"{pulled}, iou_threshold {MATCHED}": lambda question: conducted(question, layout=True, iou_threshold=MATCHED),
    }
    effects.compare(options, "two things and a layout picture", arms, pairs(options.count, things=free))
    arms = {"LoRAs stacked": stacked, **masks}
    effects.compare(options, "two things in taught looks", arms, pairs(options.count, things=tuple(looks)), looking)
    twice = [thing for thing, found in looks.items() if len(found) > 1]
    twins = [
        Question((thing, thing), question.colour, question.seed)
        for thing, question in zip(itertools.cycle(twice), pairs(options.count, seed=2), strict=False)
    ]
    effects.compare(options, "one thing twice in two taught looks", arms, twins, looking)
    held = tuple(thing for thing in loras if thing not in looks)
    if len(held) > 1:
        effects.compare(options, "two taught held-out things", arms, pairs(options.count, things=held))


if __name__ == "__main__":
    main()
