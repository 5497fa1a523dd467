"""The nodes of people beside their method: FLOPs of one to three, and IdentityNet's passes in one batch or in turn.

    python tests/bench/bench_identity.py --comfyui PATH
    python tests/bench/bench_identity.py --comfyui PATH --device cuda --width 320 --size 1024 --json identity.json

FLOPs are counted on true sizes while the host samples, beside the cheapest exact way, and as a share of the plain step;
times are of IdentityNet alone on random weights: all people as rows of one batch, as the node runs them, and one pass
after another. Without further options: a net of a quarter of its width on the CPU.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PEOPLE = (1, 2, 3)
SETTINGS = (("instantid", "sdxl"), ("faceid", "sd15"), ("faceid", "sdxl"), ("storymaker", "sdxl"))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", required=True, type=Path, help="the folder that holds ComfyUI's main.py")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--width", type=int, default=96, help="channels of the net's first level; 320 is the true one")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    return parser.parse_args()


def flops():
    """[{technique, kind, people, counted, cheapest, net, share}] of a further step with CFG."""
    from bench.flops import costs, counted, hollow_model
    from bench.identity_flops import SIDES, attention_work, hollow_net, net_flops, with_people

    rows, models, net = [], {kind: hollow_model(kind) for kind in ("sd15", "sdxl")}, hollow_net()
    each = net_flops(2)
    for technique, kind in SETTINGS:
        plain = 2 * costs(kind, SIDES[kind], range(16 if kind == "sd15" else 70)).plain
        for people in PEOPLE:
            inputs = {"control_net": net} if technique == "instantid" else {}
            model = with_people(models[kind], technique, kind, people, **inputs)
            spent = counted(model, kind, SIDES[kind], [5.0, 2.0]).calls[-1].flops - plain
            cheapest = attention_work(technique, kind, people) + (people * each if inputs else 0)
            rows.append(
                dict(
                    technique=technique, kind=kind, people=people, counted=spent, cheapest=cheapest, share=spent / plain
                )
            )
            sys.stderr.write(f"{technique} {kind} {people}: {spent / 1e9:.1f} of {cheapest / 1e9:.1f} GFLOP\n")
    return rows


def passes(options):
    """[{people, batched, "in turn"}]: seconds of IdentityNet for both rows of each person, in turns, medians."""
    import comfy.cldm.cldm
    import comfy.ops
    import torch
    from bench.identity_flops import net_config

    device = torch.device(options.device)
    made = comfy.cldm.cldm.ControlNet(**net_config(options.width), operations=comfy.ops.disable_weight_init)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    net, latent = made.eval().to(device), options.size // 8

    def seconds(rows):
        given = dict(x=torch.randn(rows, 4, latent, latent), hint=torch.rand(rows, 3, options.size, options.size))
        given |= dict(
            timesteps=torch.full((rows,), 500.0), context=torch.randn(rows, 16, 2048), y=torch.randn(rows, 2816)
        )
        given = {name: t.to(device) for name, t in given.items()}
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        net(**given)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    found = []
    with torch.inference_mode():
        seconds(2)
        for people in PEOPLE:
            batched, turns = [], []
            for _ in range(options.repeats):
                batched.append(seconds(2 * people))
                turns.append(sum(seconds(2) for _ in range(people)))
            found.append({"people": people, "batched": statistics.median(batched), "in turn": statistics.median(turns)})
    return found


def main():
    options = arguments()
    sys.path[:0] = [str(options.comfyui.resolve()), str(TESTS)]
    from comfy.cli_args import args

    args.cpu = options.device == "cpu"
    import conftest  # noqa: F401
    import torch

    with torch.inference_mode():
        counts = flops()
    times = passes(options)
    print("| technique | people | counted GFLOP | cheapest exact | of a plain step |")
    print("| --- | --- | --- | --- | --- |")
    for row in counts:
        name = f"{row['technique']} {row['kind']}"
        numbers = f"{row['counted'] / 1e9:.1f} | {row['cheapest'] / 1e9:.1f} | {100 * row['share']:.2f} %"
        print(f"| {name} | {row['people']} | {numbers} |")
    print("\n| people | IdentityNet in one batch | one pass after another |")
    print("| --- | --- | --- |")
    for row in times:
        print(f"| {row['people']} | {row['batched']:.3f} s | {row['in turn']:.3f} s |")
    if options.json:
        options.json.write_text(json.dumps({"flops": counts, "passes": times, "device": options.device}, indent=2))


if __name__ == "__main__":
    main()
