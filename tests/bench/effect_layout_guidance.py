"""When does layout guidance break pictures? Noise pictures of Concept Conductor by guidance_weight and steps.

    python tests/bench/effect_layout_guidance.py --table tests/bench/results/effect_layout_guidance.md

Two subjects without LoRA, a disc as layout picture, euler, the same seeds everywhere. A picture counts as noise when
its latent leaves what pictures of the plain model have: its largest value is above 30, that of plain ones about 15.
`held` counts the guided steps that would have been larger than a step of the sampler and were held to its size.
`--free` measures what happens where nothing is held.
"""

import itertools

import effects

NOISE = 30.0
CFG = 4.0


def main():
    parser = effects.parser(__doc__)
    parser.add_argument("--weights", type=float, nargs="+", default=[10.0])
    parser.add_argument("--numbers", type=int, nargs="+", default=[10, 20, 30, 50], help="numbers of steps")
    parser.add_argument("--free", action="store_true", help="hold no step")
    parser.set_defaults(count=48)
    options = effects.parsed(parser)
    import comfy.sample
    import torch
    from samples import encode
    from support.models import execute

    from pack.nodes.concept_conductor import layout_steps
    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
    from pack.nodes.concept_conductor.concepts_node import AddConcept
    from pack.nodes.masks.box_mask_node import BoxMask
    from pack.nodes.pocket.pocket_model import load_pocket

    model, clip, vae = load_pocket()
    chain = ()
    for x, text in ((0.0, "a fox and a fox"), (0.5, "a tiger and a tiger")):
        (half,) = execute(BoxMask, x=x, y=0.0, width=0.5, height=1.0)
        inputs = {"model": model, "positive": encode(clip, text), "mask": half}
        (chain,) = execute(AddConcept, concepts=chain, **inputs)
    noise = torch.cat([torch.randn(1, 4, 16, 16, generator=torch.manual_seed(i)) for i in range(options.count)])
    positive, negative = encode(clip, "a fox and a tiger on a teal background"), encode(clip, "")
    held, real = [], layout_steps.held_to_step

    def noted(shift, *levels):
        found = real(shift, *levels)
        held.append(found[1])
        return (shift, found[1]) if options.free else found

    layout_steps.held_to_step = noted

    @torch.inference_mode()
    def latents(weight, steps):
        layout = {"layout_image": disc(torch), "layout_positive": encode(clip, "a star"), "vae": vae}
        (patched,) = execute(
            ConceptConductor, model=model, concepts=chain, guidance_weight=weight, refine_end=0.0, **layout
        )
        texts, fixed = (positive, negative), {"disable_pbar": True, "seed": 0}
        parts = [
            comfy.sample.sample(patched, part, steps, CFG, "euler", "normal", *texts, torch.zeros_like(part), **fixed)
            for part in noise.split(24)
        ]
        return torch.cat(parts)

    lines = ["| guidance_weight | steps | noise pictures | largest value | held |", "| --- " * 5 + "|"]
    for weight, steps in itertools.product(options.weights, options.numbers):
        held.clear()
        largest = latents(weight, steps).abs().amax((1, 2, 3))
        share = torch.cat(held).float().mean() if held else 0.0
        noise_pictures = int((largest > NOISE).sum())
        lines.append(
            f"| {weight:g}{', free' if options.free else ''} | {steps} | {noise_pictures} of {options.count} | "
            f"{largest.max():.1f} | {share:.0%} |"
        )
        print(lines[-1], flush=True)
    if options.table:
        with options.table.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


def disc(torch):
    """IMAGE (1, 128, 128, 3): a disc on a plain background."""
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    inside = ((x - 64) ** 2 + (y - 64) ** 2 < 42**2)[..., None]
    return torch.where(inside, torch.tensor([0.94, 0.78, 0.16]), torch.tensor([0.78, 0.24, 0.24]))[None]


if __name__ == "__main__":
    main()
