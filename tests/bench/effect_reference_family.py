"""Do MRSA, DreamTuner and Reference Only bring the look of one picture, and its ground as well? What of guidance?

    python tests/bench/effect_reference_family.py --table tests/bench/results/effect_reference_family.md

Each question asks for a thing on a ground. The reference is a picture of such a thing that the model has drawn before
on another ground, the thing's hues turned by an angle that no word names. A picture is right if the thing, the
reference's hue and the ground that was asked for are there; the reference's own ground is counted as well.
"""

import math
from functools import cache

import drawn
import effects

SCALES, FIDELITIES = (2.0, 4.0, 7.5), (0.0, 0.5, 1.0)
GUIDED = f", guided, scale {SCALES[1]:g}"
# the best of effect_mrsa_looks
SETTINGS = {"blocks": "all", "weight": 1.1, "style_fidelity": 0.0}


def nodes():
    """The nodes that this needs."""
    from pack.nodes.reference_attention.dreamtuner_node import DreamTuner
    from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
    from pack.nodes.reference_attention.reference_guidance_node import ReferenceGuidanceNode
    from pack.nodes.reference_attention.reference_only_node import ReferenceOnlyNode
    from pack.nodes.references.references_node import AddReference

    return AddReference, MultiReferenceSelfAttention, DreamTuner, ReferenceGuidanceNode, ReferenceOnlyNode


def main():
    options = effects.parsed(effects.parser(__doc__))
    import sight
    import torch
    from looks import turned
    from questions import singles
    from samples import draw
    from support.models import execute
    from things import COLOURS

    AddReference, MRSA, DreamTuner, Guidance, ReferenceOnly = nodes()
    model, clip, vae = parts = effects.pocket(options)
    draw_once = drawn.Drawer(options, parts, effects.judge_of(options)).draw

    @cache
    def shown(question):
        """(picture, mask, hue) of the reference of a question."""
        picture, mask, _ = draw_once(drawn.elsewhere(question))
        angle = math.pi * (1 + 4 * torch.rand(1, generator=torch.Generator().manual_seed(question.seed))) / 3
        whole = torch.cat([picture.movedim(-1, 1), torch.ones(1, 1, *picture.shape[1:3])], 1)
        picture = torch.where(mask[..., None] > 0, turned(whole, angle)[:, :3].movedim(1, -1), picture)
        return picture, mask, sight.hue_in(picture[0], mask[0])

    def prompted(question, model=model):
        return draw((model, clip, vae), question.prompt(), [question.seed], steps=options.steps, cfg=options.cfg)

    @torch.inference_mode()
    def referred(question, node, mask=True, scale=None, **settings):
        picture, place, _ = shown(question)
        text = drawn.elsewhere(question).prompt()
        said = {"word": question.things[0], "prompt": text, "mask": place if mask else None}
        (chain,) = execute(AddReference, image=picture, **said)
        more = {} if node is ReferenceOnly else {"clip": clip}
        (patched,) = execute(node, model=model, vae=vae, references=chain, **more, **settings)
        if scale:
            (patched,) = execute(Guidance, model=patched, reference_scale=scale)
        return prompted(question, patched)

    arms = {"prompt only": prompted, "the reference itself": lambda question: shown(question)[0]}

    def add(name, *settings, **more):
        arms[name] = lambda question: referred(question, *settings, **more)

    for name, node, settings in (("MRSA", MRSA, SETTINGS), ("DreamTuner", DreamTuner, {})):
        add(name, node, **settings)
        for scale in SCALES:
            add(f"{name}, guided, scale {scale:g}", node, scale=scale, **settings)
    add("DreamTuner, no mask", DreamTuner, mask=False)
    add(f"DreamTuner, no mask{GUIDED}", DreamTuner, mask=False, scale=SCALES[1])
    for fidelity in FIDELITIES:
        add(f"Reference Only, no mask, style_fidelity {fidelity:g}", ReferenceOnly, mask=False, style_fidelity=fidelity)

    def said(question, picture, judge):
        ground = list(COLOURS)[judge.look(picture.movedim(-1, 1).float()).background[0]]
        found = sight.answers(question, picture, judge, [shown(question)[2]])
        return found | {"the reference's ground": ground == drawn.elsewhere(question).colour}

    against = {name: [f"{name}, guided, scale {scale:g}" for scale in SCALES] for name in ("MRSA", "DreamTuner")}
    against |= {f"DreamTuner, no mask{end}": [f"DreamTuner{end}"] for end in ("", GUIDED)}
    effects.compare(options, "one thing as the reference has it", arms, singles(options.count), said, against)


if __name__ == "__main__":
    main()
