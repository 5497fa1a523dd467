"""FLOPs of VisCtrl's passes and of PILOT's operations beside the floor of each.

    python tests/bench/bench_editing.py --comfyui PATH

At the true size of SD1.5 (512) or SDXL (1024), with guidance, one picture and one reference. VisCtrl's calls are
counted on a UNet that computes shapes alone; an operation of PILOT on a narrow one with random weights, since its
gradient needs numbers. No figure depends on the machine.
"""

import timing

# steps and start_step of the first pass, and of the further ones, as published
PASSES = ((10, 2), (5, 1))
NARROW = {"sd15": (128, 32), "sdxl": (128, 64)}


def main():
    options = timing.parsed(timing.parser(__doc__))
    timing.load_host(options)
    from bench import editing_flops

    kind, size = options.kind, editing_flops.SIZES[options.kind]
    # two inversions of two evaluations, a step that reads nothing and one that reads the reference
    made = editing_flops.visctrl(kind, size, iterations=1, steps=3, start_step=1)
    there, plain, reads = made.calls[0] + made.calls[2], *made.calls[4:]
    print(f"{kind}, {size}x{size}; a plain step: {2 * made.row / 1e12:.3g} TFLOP\n")
    print("| VisCtrl | TFLOP | floor | counted / floor | in plain steps |")
    print("| --- | --- | --- | --- | --- |")
    for steps, start in PASSES:
        counted = (steps - 1) * there + start * plain + (steps - 1 - start) * reads
        floor = made.floor(steps, start)
        print(
            f"| {steps} steps, start_step {start} | {counted / 1e12:.1f} | {floor / 1e12:.1f} "
            f"| {counted / floor:.3f} | {counted / 2 / made.row:.1f} |"
        )
    row, back = editing_flops.there_and_back(kind, size)
    hole = editing_flops.of_the_hole(kind, size)
    narrow = editing_flops.pilot(kind, *NARROW[kind])
    print("\n| an operation of PILOT | GFLOP |")
    print("| --- | --- |")
    print(f"| one row there | {row / 1e9:.0f} |")
    print(f"| and back | {back / 1e9:.0f} |")
    print(f"| the hole in cross-attention, both ways | {hole / 1e9:.0f} |")
    size, width = NARROW[kind]
    left = narrow.counted - narrow.row - narrow.back - narrow.hole
    print(f"\nCounted at {size}x{size}, width {width}: {narrow.counted} FLOPs, beside these three {left}.")


if __name__ == "__main__":
    main()
