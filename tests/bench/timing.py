"""What all benches of a sampling step share: options, a model of random weights, the seconds of one step."""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

SIGMA = 5.0


def parser(description):
    """A parser with the options that every bench takes."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--comfyui", metavar="PATH", default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    found.add_argument("--kind", choices=["sd15", "sdxl"], default="sd15")
    found.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    found.add_argument("--width", type=int, help="channels of the first level: 320 is the true UNet (cpu: 160)")
    found.add_argument("--size", type=int, help="pixels of the picture's sides (512, sdxl: 1024)")
    found.add_argument("--repeats", type=int, help="steps of each kind (cpu: a few, cuda: 20)")
    found.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="cpu: float32, cuda: float16")
    found.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor seconds, which others on a shared machine disturb less (take one thread then)",
    )
    found.add_argument("--json", type=Path, metavar="FILE", help="all times, for further work")
    return found


def parsed(parser, cpu_size=None, cpu_repeats=2):
    """The options, with the defaults that depend on others; a bench may want others on a CPU."""
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if options.width and options.width % 32:
        parser.error("the width must be a multiple of 32")
    if not options.comfyui:
        parser.error("name ComfyUI's folder with --comfyui")
    if on_gpu and options.clock == "cpu":
        parser.error("a GPU's time is on the wall clock")
    defaults = {
        "width": 320 if on_gpu else 160,
        "size": cpu_size if cpu_size and not on_gpu else 1024 if options.kind == "sdxl" else 512,
        "repeats": 20 if on_gpu else cpu_repeats,
        "dtype": "float16" if on_gpu else "float32",
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def load_host(options):
    """ComfyUI and the pack, as the tests load them."""
    os.environ["COMFYUI_PATH"] = options.comfyui
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import conftest  # noqa: F401


def random_model(options):
    """A MODEL of the host with random weights, on the device where it will run."""
    import torch
    from bench import flops

    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype)
    model = flops.host_model(options.kind, options.width, dtype, device, load_device=device)
    for name, weight in model.model.diffusion_model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(float(name.endswith("weight")))
    return model


class Stopwatch:
    """A DIFFUSION_MODEL wrapper that keeps the seconds of each call of the UNet, with all that hangs on it."""

    def __init__(self, device, clock):
        self.seconds = []
        self.device = device
        self.now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]

    def __call__(self, executor, *args, **kwargs):
        self._wait()
        start = self.now()
        out = executor(*args, **kwargs)
        self._wait()
        self.seconds.append(self.now() - start)
        return out

    def _wait(self):
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def step_seconds(model, options, seed, steps=1):
    """Seconds of the last of so many steps of the MODEL."""
    import torch
    from bench import flops
    from support.models import sample

    watch = Stopwatch(options.device, options.clock)
    model = model.clone()
    model.add_wrapper_with_key("diffusion_model", "stopwatch", watch)
    text = flops.text(options.kind)
    latent = (1, 4, options.size // 8, options.size // 8)
    sigmas = torch.tensor([*(SIGMA / 2**step for step in range(steps)), 0.0])
    sample(model, text, text, latent=latent, seed=seed, sigmas=sigmas)
    return watch.seconds[-1]


def setting(options, more=""):
    """One line: on what this was measured; `more` settings of the bench begin with a comma."""
    import comfy.ldm.modules.attention as attention
    import comfyui_version
    import torch

    if options.device == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        machine = f"{_cpu()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    unet = {"sd15": "SD1.5", "sdxl": "SDXL"}[options.kind]
    if options.width != 320:
        unet += f" at width {options.width}"
    return (
        f"{machine}; torch {torch.__version__}, ComfyUI {comfyui_version.__version__}, {options.dtype}, "
        f"{attention.optimized_attention.__name__}; {unet}, {options.size}x{options.size}{more}; "
        f"median of {options.repeats}, {options.clock} clock"
    )


def _cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
