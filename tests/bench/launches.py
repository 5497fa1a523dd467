"""What a GPU feels of a sampling step and no FLOP count shows: launches, bytes, waiting, copies between devices.

    python tests/bench/launches.py --comfyui PATH

Counted on the CPU, exactly, on UNets of true structure (every block, few channels and tokens: neither changes a
count): what each technique adds to one call of the UNet with both rows of CFG, beside the plain call. Operators that
only look at memory in another way, or set some aside, are none. Copies and reads are counted on an emulated card.
"""

import argparse
import os

# Channels of the first level, pixels and dtype: as small as the structure allows, and half precision with its casts.
WIDTH, SIZE, DTYPE = 32, 64, "bfloat16"
SIGMAS = (5.0, 2.0)
# What a call of the UNet with both rows of CFG may launch beside the plain one.
BUDGETS = {
    "MRSA, 3 references, cached": {"sd15": 110, "sdxl": 380},
    "MIP-Adapter, 3 pictures": {"sd15": 260, "sdxl": 1150},
    "Concept Conductor, 2 concepts": {"sd15": 300, "sdxl": 1250},
}


def structure(kind, device="cpu"):
    """A MODEL of random weights with all blocks of its family."""
    import torch
    from bench import flops

    model = flops.host_model(kind, WIDTH, getattr(torch, DTYPE), device, load_device=torch.device(device))
    for weight in model.model.diffusion_model.parameters():
        weight.normal_(std=weight[0].numel() ** -0.5) if weight.ndim > 1 else weight.fill_(0.5)
    return model


def techniques(kind):
    """{name: (function that puts it on a MODEL, pictures made before it is counted, noise levels)}."""
    from bench import flops, image_flops
    from bench.concept_flops import chain_of
    from bench.family_flops import referring
    from support.models import execute

    from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor

    mask = flops.mask_of(flops.COVERAGE)

    def mrsa(model):
        return flops.patched(model, kind, SIZE, 3, mask, cache_mb=1024)

    def pictures(model):
        return image_flops.with_images(model, kind, 3, 16, random=True)

    def concepts(model):
        chain = chain_of(model, kind, 2)
        return execute(ConceptConductor, model=model, concepts=chain, refine_start=1.0, refine_end=0.0)[0]

    def family(technique):
        # whole pictures: the smallest grids have a single token
        return lambda model: referring(model, kind, SIZE, None, technique, cache_mb=1024)

    return {
        "MRSA, 3 references, first": (mrsa, 0, SIGMAS[:1]),
        "MRSA, 3 references, cached": (mrsa, 1, SIGMAS[:1]),
        "MIP-Adapter, 3 pictures": (pictures, 0, SIGMAS),
        "Concept Conductor, 2 concepts": (concepts, 0, SIGMAS),
        "DreamTuner, 1 reference, cached": (family("dreamtuner"), 1, SIGMAS[:1]),
        "Reference Only, 1 reference, cached": (family("reference_only"), 1, SIGMAS[:1]),
    }


def counted(model, kind, before=0, sigmas=SIGMAS[:1], card=None, **latent):
    """(Launches of the last call of the UNet, of the sampler's whole last step), after so many pictures before."""
    import torch
    from bench import flops
    from bench.launch_counter import Counter
    from comfy.patcher_extension import WrappersMP
    from support.models import sample
    from support.outermost import put_outermost

    calls, steps = [], []

    def watching(found):
        def watch(executor, *args, **kwargs):
            with Counter(card) as count:
                out = executor(*args, **kwargs)
            found.append(count.found)
            return out

        return watch

    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, watching(calls))
    put_outermost(model, WrappersMP.PREDICT_NOISE, watching(steps))
    texts = latent.pop("texts", None) or (flops.text(kind), flops.text(kind))
    size = latent.pop("size", SIZE) // 8
    for seed in range(before + 1):
        sample(model, *texts, latent=(1, 4, size, size), seed=seed, sigmas=torch.tensor([*sigmas, 0.0]))
    return calls[-1], steps[-1]


def added(kind, names=None):
    """{name: (Launches of a call, how many operators more than the plain call has)}, the plain one first."""
    from bench.launch_counter import plainly

    with plainly():
        model = structure(kind)
        plain, _ = counted(model, kind)
        found = {"plain": (plain, 0)}
        for name, (attach, before, sigmas) in techniques(kind).items():
            if names is None or name in names:
                call, _ = counted(attach(model), kind, before, sigmas)
                found[name] = call, call.operators - plain.operators
    return found


def table(found):
    """Markdown of {kind: what `added` found}."""
    lines = ["| | SD1.5: launches | budget | SDXL: launches | budget |", "| --- | --- | --- | --- | --- |"]
    for name in found["sd15"]:
        cells = [name]
        for kind in ("sd15", "sdxl"):
            call, more = found[kind][name]
            cells += [str(call.operators), ""] if name == "plain" else [f"+{more}", _budget(name, kind)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _budget(name, kind):
    budget = BUDGETS.get(name, {}).get(kind)
    return f"+{budget}" if budget else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH", default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    options = parser.parse_args()
    import timing

    options.device = "cpu"
    timing.load_host(options)
    print(table({kind: added(kind) for kind in ("sd15", "sdxl")}))


if __name__ == "__main__":
    main()
