"""Time of a sampling step with MIP-Adapter beside the same step without it, and the FLOPs of both beside the floor.

    python tests/bench/bench_mip_adapter.py --comfyui PATH
    python tests/bench/bench_mip_adapter.py --comfyui PATH --device cuda --kind sdxl --json sdxl.json

A step is one call of the UNet with both rows of CFG, run by the host's sampler on a UNet of random weights: speed does
not depend on them. "first" reads the words by the text's matrices, "further" is every later step. "concatenated" is
what an IP-Adapter does with several pictures: their tokens in one attention beside the text's, keys and values anew at
each step. "image parts" is what our own code takes of a first step beside the text's attention, measured within that
step: on a shared machine the surest figure. All kinds of steps and plain ones take turns. Without further options:
SD1.5 of half its width on the CPU.
"""

import json
import statistics
import sys

import timing
from timing import SIGMA, random_model, step_seconds


def arguments():
    parser = timing.parser(__doc__)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 4], metavar="R")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 16], help="image tokens of a reference")
    return timing.parsed(parser)


def concatenated(model, references, tokens):
    """The MODEL with a callable at each cross-attention that attends to the text, and to all image tokens at once."""
    import torch
    from bench.image_flops import adapter
    from comfy.ldm.modules.attention import optimized_attention

    from pack.nodes.image_adapters.adapter_fit import cross_attentions

    patched = model.clone()
    file = adapter(model, tokens, random=True)
    pictures = torch.randn(1, references * tokens, file.width)

    def image_prompt(pair):
        def attend(q, k, v, options):
            rows = pictures.to(q).expand(q.shape[0], -1, -1)
            keys, values = (rows @ matrix.to(q).mT for matrix in (pair.to_k, pair.to_v))
            attention = lambda *kv: optimized_attention(q, *kv, options["n_heads"])  # noqa: E731
            return attention(k, v) + attention(keys, values)

        return attend

    for block, pair in zip(cross_attentions(model.model.diffusion_model), file.pairs, strict=True):
        patched.set_model_attn2_replace(image_prompt(pair), *block)
    return patched


class OwnTime:
    """While it is open: the seconds that the image parts of all layers take, on the bench's clock."""

    def __init__(self, options):
        self.watch = timing.Stopwatch(options.device, options.clock)

    def __enter__(self):
        from pack.nodes.image_prompts.image_branch import ImageBranch

        self.branch = ImageBranch
        self.parts = {name: getattr(ImageBranch, name) for name in ("prepare", "_add")}
        for name, part in self.parts.items():
            setattr(ImageBranch, name, lambda *args, part=part: self.watch(part, *args))
        return self

    def __exit__(self, *error):
        for name, part in self.parts.items():
            setattr(self.branch, name, part)

    @property
    def seconds(self):
        return sum(self.watch.seconds)


def measured(options):
    """{(references, tokens): {"plain", "first", "further", "concatenated": [seconds], "own": [share]}}, in turns."""
    from bench.image_flops import with_images

    model = random_model(options)
    settings = [(references, tokens) for tokens in options.tokens for references in options.references]
    kinds = ("plain", "first", "further", "concatenated", "own")
    times = {setting: {kind: [] for kind in kinds} for setting in settings}
    step_seconds(model, options, seed=0)  # the first of all only warms up
    for _ in range(options.repeats):
        for references, tokens in settings:
            ours = with_images(model, options.kind, references, tokens, random=True)
            turn = {
                "plain": step_seconds(model, options, seed=0),
                "first": step_seconds(ours, options, seed=0),
                "further": step_seconds(ours, options, seed=0, steps=2),
                "concatenated": step_seconds(concatenated(model, references, tokens), options, seed=0),
            }
            with OwnTime(options) as own:
                whole = step_seconds(ours, options, seed=0)
            turn["own"] = own.seconds / whole
            for kind, seconds in turn.items():
                times[references, tokens][kind].append(seconds)
            told = ", ".join(f"{kind} {seconds:.3g}" for kind, seconds in turn.items())
            sys.stderr.write(f"{references} references of {tokens} tokens: {told}\n")
    return times


def counted(options):
    """{(references, tokens): {"first", "further": (added FLOPs, the least)}}, and the FLOPs of a plain step."""
    from bench import flops, image_flops

    layers = range({"sd15": 16, "sdxl": 70}[options.kind])
    plain = 2 * flops.costs(options.kind, options.size, layers, options.width).plain
    hollow = flops.hollow_model(options.kind, options.width)
    counts = {}
    for tokens in options.tokens:
        for references in options.references:
            ours = image_flops.with_images(hollow, options.kind, references, tokens)
            meter = flops.counted(ours, options.kind, options.size, [SIGMA, SIGMA / 2])
            least = image_flops.work(options.kind, options.size, references, tokens, width=options.width)
            counts[references, tokens] = {
                kind: (call.flops - plain, floor)
                for kind, call, floor in zip(("first", "further"), meter.calls, least, strict=True)
            }
    return counts, plain


def table(times, counts, plain):
    """Markdown. Times are compared with the plain step of the same turn, FLOPs with those of a plain step."""
    lines = [
        "| references | tokens of each | step | time, x plain | image parts, % of the step | added FLOPs, % of plain "
        "| added FLOPs / least |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (references, tokens), found in times.items():
        for kind in ("first", "further", "concatenated"):
            ratios = [seconds / alone for seconds, alone in zip(found[kind], found["plain"], strict=True)]
            added, least = counts[references, tokens].get(kind, (None, None))
            flops = f"{100 * added / plain:.3f} | {added / least:.3f}" if added else "| "
            own = f"{100 * statistics.median(found['own']):.2f}" if kind == "first" else ""
            lines.append(f"| {references} | {tokens} | {kind} | {statistics.median(ratios):.3f} | {own} | {flops} |")
    return "\n".join(lines)


def main():
    options = arguments()
    timing.load_host(options)
    import torch

    with torch.inference_mode():
        times = measured(options)
        counts, plain = counted(options)
    setting = timing.setting(options)
    print(f"{setting}\n\n{table(times, counts, plain)}")
    if options.json:
        seconds = {f"{references} of {tokens}": found for (references, tokens), found in times.items()}
        options.json.write_text(json.dumps({"setting": setting, "plain_flops": plain, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
