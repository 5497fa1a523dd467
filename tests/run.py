"""The one command of this repository: makes a ComfyUI to run in, then `test`, `demo` or `serve`."""

import sys

# Checked before anything else is imported, so that an old Python says this and not something about syntax.
if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("Python 3.10 or newer is needed; this is " + sys.version.split()[0])

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import demo as demo_graph
from setup import browser, environment, front_ends, hosts, rooms
from setup.host_server import PromptError, Server, ServerError, pictures
from setup.steps import SetupError, clean_environment, done, last_lines, locked, mark, run, say, step

ROOT = Path(__file__).resolve().parent.parent
PACK = "comfyui-personalization"
# Test processes at once; each takes up to 2 GB.
MOST_WORKERS = 4


def main(arguments):
    options = parse(arguments)
    # A plain kill then ends the server as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # pip and the server may say letters that the terminal lacks.
    sys.stdout.reconfigure(errors="replace")
    commands = {"test": test, "demo": demo, "serve": serve}
    try:
        return commands[options.command](options)
    except (SetupError, ServerError) as error:
        say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130


def parse(arguments):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='What stands after "--" goes on to pytest (test) or to ComfyUI (serve): run.py test -- -k mrsa',
    )
    parser.add_argument("command", choices=["demo", "test", "serve"])
    parser.add_argument("--host", choices=list(hosts.HOSTS), default=hosts.NEWEST, help="the version of ComfyUI")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="test what each version of ComfyUI must pass, no more")
    length.add_argument("--whole", action="store_true", help="test also what is marked slow: every combination")
    parser.add_argument("--browser", action="store_true", help="install what the browser tests need (Debian, as root)")
    parser.add_argument("--comfyui", metavar="PATH", help="use this ComfyUI instead; nothing is installed into it")
    parser.add_argument("--python", metavar="PATH", help="its interpreter, if it is not found beside it")
    parser.add_argument("--cache", metavar="DIR", help="where downloads and the environment are kept")
    parser.add_argument("--port", type=int, help="of the server (demo, serve); a free one if left out")
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--cpu", dest="cpu", action="store_true", default=None)
    device.add_argument("--gpu", dest="cpu", action="store_false", help="default: if nvidia-smi finds one")
    options = parser.parse_args(arguments[:split])
    options.rest = arguments[split + 1 :]
    if options.python and not options.comfyui:
        parser.error("--python goes with --comfyui")
    return options


def test(options):
    python, host, _, cpu = prepare(options)
    if lacks(python, "pytest"):
        raise SetupError(f"pytest is missing there; this installs it: {python} -m pip install pytest")
    cache = environment.cache_folder(options.cache)
    if options.browser:
        with locked(cache):
            browser.install(cache)
            front_ends.install(cache, python)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    # Tiny tensors: threads would spend their time waiting for each other.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    variables = {"COMFYUI_PATH": str(host), "PERSONALIZATION_CACHE": str(cache), **hidden, **threads}
    chosen, few = selection(options)
    shared = [] if few else workers(python, cpu)
    command = [python, "-m", "pytest", *chosen, *shared, *options.rest]
    return run(command, cwd=ROOT, env=clean_environment(**variables))


def selection(options):
    """Options of pytest that say which tests, and whether these are too few to share out."""
    # Named files or folders stand in for the whole suite.
    named = [path for path in (ROOT / argument.split("::")[0] for argument in options.rest) if path.exists()]
    places = [] if named else rooms.on_older_hosts() if options.short else ["tests"]
    quick = options.short or not (named or options.whole)
    if quick:
        say("Left out: what is marked slow; test --whole has it")
    if options.short and not named:
        say("Left out: all but golden cases, nodes, seams to ComfyUI and workflows on its server")
    return places + (["-m", "not slow"] if quick else []), any(path.is_file() for path in named)


def workers(python, cpu):
    """Options that share tests out among processes, whole files each; none where that brings nothing."""
    cores = os.cpu_count() or 1
    if cores < 2 or not cpu or lacks(python, "xdist"):
        return []
    # one more than there are cores: tests wait for servers and browsers; in the order of setup/order.py
    return ["-n", str(min(cores + 1, MOST_WORKERS)), "--dist", "loadfile", "--no-loadscope-reorder"]


def serve(options):
    python, host, base, cpu = prepare(options)
    tiny_checkpoint(python, host, base)
    server = Server(host, python, base, options.port, cpu, {PACK: ROOT}, log=None, arguments=options.rest)
    with server:
        say(f"\nComfyUI is at {server.url}; its models are in {base / 'models'}. Ctrl-C ends it.\n")
        return server.process.wait()


def demo(options):
    python, host, base, cpu = prepare(options)
    graph = demo_graph.graph()
    with contextlib.ExitStack() as stack:
        with step("Starting ComfyUI"):
            server = stack.enter_context(Server(host, python, base, options.port, cpu, {PACK: ROOT}))
        with step(f"Drawing {sum(len(cells) for _, cells in graph.rows)} pictures with the pocket model"):
            try:
                entry = server.run(graph.nodes)
            except PromptError as error:
                raise SetupError(f"the demo's graph did not run: {error} (log: {server.log})") from error
        drawn = {node: server.view(image) for node, image in pictures(entry)}
    path = ROOT / "output" / "demo.png"
    path.parent.mkdir(exist_ok=True)
    write_sheet(python, graph.rows, drawn, path)
    say(f"{path.relative_to(ROOT)}  what each technique does, beside the same picture without it")
    return 0


def write_sheet(python, rows, drawn, path):
    """Puts pictures {node: PNG} on one sheet as the rows say."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        files = {node: Path(folder) / f"{node}.png" for node in drawn}
        for node, file in files.items():
            file.write_bytes(drawn[node])
        cells = [(title, [(caption, str(files[node])) for caption, node in row]) for title, row in rows]
        command = [python, ROOT / "tests" / "contact_sheet.py", path]
        made = subprocess.run(command, input=json.dumps(cells), capture_output=True, text=True, encoding="utf-8")
    if made.returncode:
        raise SetupError(f"the sheet of pictures could not be made: {made.stderr.strip()}")


def prepare(options):
    """(python, folder of ComfyUI, base folder for its models and outputs, whether it runs on the CPU)"""
    cache = environment.cache_folder(options.cache)
    if options.comfyui:
        host = hosts.find_existing(options.comfyui)
        python, base = Path(options.python or hosts.find_python(host)), cache / "base" / "existing"
        if not python.is_file():
            raise SetupError(f"{python} is no Python interpreter.")
        if lacks(python, "torch"):
            raise SetupError(f"{python} has no torch, so it is not ComfyUI's; name the right one with --python.")
    else:
        python, host = set_up(cache, options.host)
        base = cache / "base" / options.host
    cpu = not has_gpu() if options.cpu is None else options.cpu
    say(f"ComfyUI in {host}, {'on the CPU' if cpu else 'on the GPU'}, run by {python}")
    return python, host, base, cpu


def set_up(cache, version):
    """All hosts share one environment, made for the newest."""
    start = time.monotonic()
    with locked(cache):
        python = environment.virtual_environment(cache)
        newest = hosts.fetch(cache, python, hosts.NEWEST)
        environment.install(cache, python, "torch", environment.TORCH, needed_gb=environment.TORCH_GB)
        packages = [*environment.TORCH, *environment.TOOLS]
        environment.install(cache, python, "requirements", packages, newest / "requirements.txt")
        if sys.version_info >= (3, 11):
            environment.install(cache, python, "faces", ["--no-deps", *environment.FACES])
        host = hosts.fetch(cache, python, version)
    say(f"The environment in {cache} is ready ({time.monotonic() - start:.1f} s)")
    return python, host


def lacks(python, module):
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", code, module], capture_output=True).returncode != 0


def has_gpu():
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    except OSError:
        return False


def tiny_checkpoint(python, host, base):
    """A checkpoint of random weights among the server's models, made again when its script has changed."""
    script = ROOT / "tests" / "support" / "checkpoint.py"
    path = base / "models" / "checkpoints" / "tiny_sd15.ckpt"
    stamp, wanted = base / "tiny_sd15.stamp", hashlib.sha256(script.read_bytes()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(base):
        if not (done(stamp, wanted) and path.is_file()):
            with step("Making a tiny checkpoint"), (base / "tiny_sd15.log").open("wb") as log:
                if run([python, script, "--comfyui", host, path], log=log):
                    raise SetupError(f"the tiny checkpoint could not be made:\n{last_lines(log.name, 15)}")
            mark(stamp, wanted)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
