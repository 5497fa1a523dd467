"""Do several LoRA subjects keep apart? Concept Conductor against the same LoRAs simply stacked, same seeds.

    python tests/bench/effect_concept_conductor.py --table tests/bench/results/effect_concept_conductor.md

Two held-out things side by side, each taught by a LoRA of its own (tests/pocket/companions). Stacked: both LoRAs on
the model, one prompt that names both. Concept Conductor: each subject with its LoRA in its half; with a layout picture
that is the plain model's own picture of the two known things that are most like them.
"""

import effects


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--guidance", type=float, default=60.0, help="guidance_weight with the layout picture")
    options = effects.parsed(parser)
    import comfy.sd
    import judge
    import torch
    from questions import Question, pairs
    from safetensors.torch import load_file
    from samples import draw, encode
    from things import KIN
    from tiny import execute

    from pack.nodes.concept_conductor import ConceptConductor
    from pack.nodes.concepts import AddConcept
    from pack.nodes.host.pocket import load_pocket
    from pack.nodes.masks import BoxMask

    parts = load_pocket()
    model, clip, vae = parts
    loras = {
        path.stem.removesuffix("_lora"): load_file(path)
        for path in sorted((options.companions / "loras").glob("*_lora.safetensors"))
    }
    if len(loras) < 2:
        parser.error(
            f"{options.companions} has LoRAs for {len(loras)} things; two are needed (tests/pocket/concept.py)"
        )
    halves = [execute(BoxMask, x=x, y=0.1, width=0.46, height=0.8)[0] for x in (0.02, 0.52)]

    def taught(base, thing):
        return comfy.sd.load_lora_for_models(base, None, loras[thing], 1.0, 0.0)[0]

    def stacked(question):
        both = model
        for thing in question.things:
            both = taught(both, thing)
        return draw((both, clip, vae), question.prompt(), [question.seed], steps=options.steps)

    @torch.inference_mode()
    def conducted(question, layout):
        chain = ()
        for thing, half in zip(question.things, halves, strict=True):
            # its word in the place of every subject
            text = Question((thing, thing), question.colour, 0).prompt()
            inputs = {"model": taught(model, thing), "positive": encode(clip, text), "word": thing, "mask": half}
            (chain,) = execute(AddConcept, concepts=chain, **inputs)
        said = {"guidance_weight": 0.0}
        if layout:
            plain = draw(parts, question.prompt(KIN), [question.seed], steps=options.steps)
            said = {"guidance_weight": options.guidance, "layout_image": plain, "vae": vae}
            said["layout_positive"] = encode(clip, question.prompt(KIN))
        (patched,) = execute(ConceptConductor, model=model, concepts=chain, **said)
        return draw((patched, clip, vae), question.prompt(KIN), [question.seed], steps=options.steps)

    arms = {
        "LoRAs stacked": stacked,
        "Concept Conductor, masks": lambda question: conducted(question, layout=False),
        "Concept Conductor, layout picture": lambda question: conducted(question, layout=True),
    }
    questions = pairs(options.count, things=tuple(loras))
    effects.compare(options, "two taught things", arms, questions, judge.load())


if __name__ == "__main__":
    main()
