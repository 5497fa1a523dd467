"""Time of a sampling step with Concept Conductor beside the same step without it, and beside the host's weight hooks.

    python tests/bench/bench_concept_conductor.py --comfyui PATH
    python tests/bench/bench_concept_conductor.py --comfyui PATH --device cuda --kind sdxl --json sdxl.json

A step is one call of the sampler with both rows of CFG, run by the host's sampler on a UNet of random weights: speed
does not depend on them. "hooks": the host's own way to several LoRAs in one step, one forward per LoRA with its weights
swapped in and out, without any blending. Steps of all kinds take turns. FLOPs are counted on the true UNets. Without
further options: SD1.5 of half its width on the CPU at 256 pixels, a few minutes.
"""

import json
import statistics
import sys
import time

import timing
from timing import SIGMA


def arguments():
    parser = timing.parser(__doc__)
    parser.add_argument("--concepts", type=int, nargs="+", default=[1, 2, 3, 4], metavar="N")
    # its gradient takes more: smaller pictures, more turns
    return timing.parsed(parser, cpu_size=256, cpu_repeats=3)


class Bench:
    """One MODEL of random weights, LoRAs for it, and the three ways of a step."""

    def __init__(self, options):
        from bench import concept_flops
        from support.loras import Maker

        self.options = options
        self.model = timing.random_model(options)
        self.kind, self.rank = options.kind, concept_flops.RANK[options.kind]
        unet = self.model.model.diffusion_model
        layers = [n for n, _ in unet.named_modules() if ".attn" in n and n.endswith(concept_flops.ENDS)]
        self.files = [Maker(self.model, seed)("lora", layers, rank=self.rank) for seed in range(max(options.concepts))]

    def text(self, seed):
        from bench.concept_flops import WIDTH
        from support.models import conditioning
        from support.references import draw

        values = {"pooled_output": draw(1, 1280, seed=seed)} if self.kind == "sdxl" else {}
        return conditioning(draw(1, 77, WIDTH[self.kind], seed=seed), **values)

    def conducted(self, count, guided):
        import torch
        from support.concepts import strip
        from support.loras import loaded
        from support.models import execute
        from support.references import draw

        from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
        from pack.nodes.concept_conductor.concepts_node import AddConcept

        chain = ()
        for number in range(count):
            (chain,) = execute(
                AddConcept,
                model=loaded(self.model, self.files[number]),
                positive=self.text(10 + number),
                negative=self.text(50 + number),
                mask=strip(number, count),
                concepts=chain,
            )
        layout = {}
        if guided:
            side = self.options.size
            latent = draw(1, 4, side // 8, side // 8)
            layout = {
                "layout_image": torch.rand(1, side, side, 3),
                "layout_positive": self.text(90),
                "vae": type("", (), {"encode": lambda self, pixels: latent})(),
            }
        values = {"refine_start": 1.0, "refine_end": 0.0, "guidance_weight": 1e-6, "cache_mb": 4096, **layout}
        return execute(ConceptConductor, model=self.model, concepts=chain, **values)[0], self.text(1), self.text(2)

    def hooked(self, count):
        """One conditioning per LoRA on either side, each with a hook that swaps its weights in."""
        import comfy.hooks
        import node_helpers

        positive, negative = self.text(1), self.text(2)
        for number in range(count):
            hooks = comfy.hooks.create_hook_lora(self.files[number], 1.0, 0.0)
            for side, seed in ((positive, 10), (negative, 50)):
                side += node_helpers.conditioning_set_values(self.text(seed + number), {"hooks": hooks})
        model = self.model.clone()
        return model, positive, negative

    def seconds(self, model, positive, negative):
        """(seconds of one step, bytes at its peak or None)."""
        import torch
        from comfy.patcher_extension import WrappersMP
        from support.models import sample

        on_gpu = self.options.device == "cuda"
        measured = []

        def watch(executor, *args, **kwargs):
            if on_gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            out = executor(*args, **kwargs)
            if on_gpu:
                torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() if on_gpu else None
            measured.append((time.perf_counter() - start, peak))
            return out

        # outermost: added before the pack's own
        model = model.clone()
        wrappers = model.model_options["transformer_options"].setdefault("wrappers", {})
        of_steps = wrappers.setdefault(WrappersMP.PREDICT_NOISE, {})
        wrappers[WrappersMP.PREDICT_NOISE] = {"watch": [watch], **of_steps}
        side = self.options.size // 8
        sample(model, positive, negative, latent=(1, 4, side, side), sigmas=torch.tensor([SIGMA, 0.0]))
        (one,) = measured
        return one


def measured(options):
    """{number of concepts: {way: [(seconds, peak)]}}, in turns."""
    bench = Bench(options)
    plain = bench.model, bench.text(1), bench.text(2)
    found = {}
    for count in options.concepts:
        ways = {
            "plain": plain,
            "conducted": bench.conducted(count, guided=False),
            "guided": bench.conducted(count, guided=True),
            "hooks": bench.hooked(count),
        }
        found[count] = {way: [] for way in ways}
        for turn in range(options.repeats + 1):
            for way, inputs in ways.items():
                one = bench.seconds(*inputs)
                # the first of all only warms up: it also inverts the layout picture
                if turn:
                    found[count][way].append(one)
        told = ", ".join(f"{way} {statistics.median(t for t, _ in times):.3g} s" for way, times in found[count].items())
        sys.stderr.write(f"{count} concepts: {told}\n")
    return found


def counted(options):
    """{number of concepts: (FLOPs of a step, floor)} and the FLOPs of a plain step, of the true UNet."""
    import comfy.ldm.modules.attention as attention
    import comfy.model_management as mm
    from bench import concept_flops

    attention.optimized_attention = attention.attention_pytorch
    mm.get_free_memory = lambda *args, **kwargs: 1e18
    kind = options.kind
    counts = {n: (concept_flops.step_flops(kind, n)[0], concept_flops.floor(kind, n)) for n in options.concepts}
    return counts, 2 * concept_flops.parts(kind)["all"]


def table(times, counts, plain_flops):
    """Markdown; times and FLOPs are compared with the plain step."""
    lines = [
        "| concepts | plain, ms | conducted, x plain | guided, x plain | hooks, x plain | hooks / conducted "
        "| FLOPs, x plain | floor, x plain | FLOPs / floor | peak conducted / hooks |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for count, ways in times.items():
        median = {way: statistics.median(t for t, _ in found) for way, found in ways.items()}
        peaks = {way: max((p for _, p in found if p), default=0) for way, found in ways.items()}
        peak = f"{peaks['conducted'] / peaks['hooks']:.2f}" if peaks["hooks"] else "not measured"
        flops, floor = counts[count]
        plain = median["plain"]
        lines.append(
            f"| {count} | {1000 * plain:.0f} | {median['conducted'] / plain:.2f} | {median['guided'] / plain:.2f} "
            f"| {median['hooks'] / plain:.2f} | {median['hooks'] / median['conducted']:.2f} "
            f"| {flops / plain_flops:.3f} | {floor / plain_flops:.3f} | {flops / floor:.3f} | {peak} |"
        )
    return "\n".join(lines)


def main():
    options = arguments()
    timing.load_host(options)
    import torch

    with torch.inference_mode():
        times = measured(options)
        # the attention that was timed: FLOPs are counted with another one
        setting = timing.setting(options, ", FLOPs of the true UNet")
        counts, plain_flops = counted(options)
    print(f"{setting}\n\n{table(times, counts, plain_flops)}")
    if options.json:
        result = {"setting": setting, "plain_flops": plain_flops, "times": times, "flops_and_floor": counts}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
