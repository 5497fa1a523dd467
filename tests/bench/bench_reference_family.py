"""FLOPs of a sampling step with DreamTuner, Reference Only and Reference Guidance beside the floor of each.

    python tests/bench/bench_reference_family.py --comfyui PATH

A step is one call of the UNet with both rows of CFG, at the true size of SD1.5 (512) or SDXL (1024), one reference. It
is counted while the host samples on a UNet that computes shapes alone, so no figure depends on the machine. "further":
the next picture, which finds keys and statistics in the bank.
"""

import timing

SIZES = {"sd15": (512, range(16)), "sdxl": (1024, range(70))}
# (name, technique, settings, guided by the reference: None where there is no guidance)
ROWS = (
    ("Reference Only, fidelity 1", "reference_only", {"style_fidelity": 1.0}, None),
    ("Reference Only, fidelity 0.5", "reference_only", {"style_fidelity": 0.5}, None),
    ("DreamTuner", "dreamtuner", {}, None),
    ("DreamTuner, a step guided by the reference", "dreamtuner", {}, True),
    ("DreamTuner, a step guided by the prompt", "dreamtuner", {}, False),
)


def main():
    parser = timing.parser(__doc__)
    parser.add_argument("--coverages", type=float, nargs="+", default=[1, 0.224], help="shares that masks keep")
    options = timing.parsed(parser)
    timing.load_host(options)
    import torch
    from bench import family_flops, flops

    from pack.nodes.reference_attention import reference_guidance

    size, blocks = SIZES[options.kind]
    cost, hollow = flops.costs(options.kind, size, blocks), flops.hollow_model(options.kind)
    print(f"{options.kind}, {size}x{size}, one reference; a plain step: {2 * cost.plain / 1e12:.3g} TFLOP\n")
    print("| step | mask | first, x plain | floor | first / floor | further, x plain |")
    print("| --- | --- | --- | --- | --- | --- |")
    with torch.inference_mode(), family_flops.watched_inside():
        for name, technique, settings, guided in ROWS:
            for coverage in options.coverages:
                mask = flops.mask_of(coverage)
                model = family_flops.referring(hollow, options.kind, size, mask, technique, **settings)
                if guided is not None:
                    model = family_flops.guided(model)
                    draw = -9.0 if guided else 9.0
                    reference_guidance.seeded_noise = lambda name, shape, draw=draw: torch.full(shape, draw)
                floor = family_flops.floor(
                    cost, mask, technique, both=None if guided is None else not guided, **settings
                )
                meter = flops.counted(model, options.kind, size, [5.0], positive=family_flops.prompt(options.kind))
                first, further = meter.calls[0].useful, meter.forwards[0][-1].useful
                plain = 2 * cost.plain
                print(
                    f"| {name} | {coverage:g} | {first / plain:.2f} | {floor / plain:.2f} | {first / floor:.3f} "
                    f"| {further / plain:.2f} |"
                )


if __name__ == "__main__":
    main()
