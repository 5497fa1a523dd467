"""A real ComfyUI server for the time of a `with` block, and the few HTTP calls that tests need."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

FOLDERS = (
    "models/checkpoints",
    "models/clip_vision",
    "models/loras",
    "models/ipadapter",
    "custom_nodes",
    "input",
    "output",
    "temp",
    "user/default",
)
START_SECONDS = 300


class ServerError(RuntimeError):
    """The server did not start, or ended by itself."""


class PromptError(RuntimeError):
    """A graph was refused or failed; `node_errors` is what the server says about single nodes."""

    def __init__(self, message, node_errors=None):
        super().__init__(message)
        self.node_errors = node_errors or {}


class Server:
    """`log` is the file that takes the server's output; None leaves it on the terminal."""

    def __init__(self, host, python, base, port=None, cpu=True, packs=None, log="server.log", arguments=()):
        self.host, self.python, self.base = Path(host), Path(python), Path(base).absolute()
        self.port = port or free_port()
        self.cpu, self.packs, self.arguments = cpu, dict(packs or {}), list(arguments)
        self.log = None if log is None else self.base / log
        self.url = f"http://127.0.0.1:{self.port}"
        # A proxy from the environment must not stand between us and our own machine.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.process = self.scratch = None

    def __enter__(self):
        make_base(self.base, self.packs)
        self.scratch = tempfile.TemporaryDirectory(prefix="comfyui-server-", ignore_cleanup_errors=True)
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.stop()

    def command(self):
        # The database has a lock and a version of its own, so each server gets a fresh one.
        database = Path(self.scratch.name) / "comfyui.db"
        command = [str(self.python), "main.py", "--listen", "127.0.0.1", "--port", str(self.port)]
        command += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{database.as_posix()}"]
        command += ["--disable-api-nodes", "--disable-auto-launch", "--disable-all-custom-nodes"]
        if self.packs:
            command += ["--whitelist-custom-nodes", *self.packs]
        return command + ["--cpu"] * self.cpu + self.arguments

    def start(self):
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")
        if self.log is None:
            self.process = subprocess.Popen(self.command(), cwd=self.host, env=environment)
            return
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.host, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.scratch.cleanup()

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            self.check_alive()
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        raise ServerError(f"ComfyUI did not answer within {START_SECONDS} s.{self.log_tail()}")

    def check_alive(self):
        if self.process.poll() is not None:
            raise ServerError(f"ComfyUI ended with code {self.process.returncode}.{self.log_tail()}")

    def log_tail(self, lines=30):
        if self.log is None:
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f" The end of {self.log}:", *text[-lines:]])

    def get(self, path):
        """The bytes at a path such as "/system_stats"."""
        with self.opener.open(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path, data):
        request = urllib.request.Request(
            self.url + path, json.dumps(data).encode(), {"Content-Type": "application/json"}
        )
        with self.opener.open(request, timeout=60) as answer:
            return answer.read()

    def object_info(self, node=None):
        """What the server says of all nodes, or of one."""
        found = json.loads(self.get("/object_info" + (f"/{node}" if node else "")))
        return found[node] if node else found

    def queue(self, graph):
        """Hand a graph in; gives its id, or raises what the server has against it."""
        try:
            return json.loads(self.post("/prompt", {"prompt": graph, "client_id": "tests"}))["prompt_id"]
        except urllib.error.HTTPError as error:
            raise refusal(error.read()) from None

    def run(self, graph, timeout=600):
        """Run a graph to its end; gives its entry in the history."""
        prompt = self.queue(graph)
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check_alive()
            entry = json.loads(self.get(f"/history/{prompt}")).get(prompt)
            if entry and entry["status"]["status_str"] == "success":
                return entry
            if entry:
                raise failure(entry)
            time.sleep(0.1)
        self.interrupt()
        raise PromptError(f"the graph was not done after {timeout} s")

    def interrupt(self):
        self.post("/interrupt", {})

    def view(self, image):
        """The bytes of a picture, given as the history names it."""
        wanted = {key: image[key] for key in ("filename", "subfolder", "type")}
        return self.get("/view?" + urllib.parse.urlencode(wanted))


def pictures(entry):
    """(node id, picture) for every picture in a history entry, in the order of ids."""
    outputs = entry["outputs"]
    nodes = sorted(outputs, key=lambda node: (len(node), node))
    return [(node, image) for node in nodes for image in outputs[node].get("images", [])]


def refusal(body):
    """What a refused prompt tells: the server's sentence and a line for each node it complains about."""
    try:
        answer = json.loads(body)
    except ValueError:
        return PromptError(body.decode("utf-8", "replace").strip())
    error = answer.get("error", {})
    if isinstance(error, str):
        error = {"message": error}
    lines = [" ".join(filter(None, [error.get("message"), error.get("details")]))]
    node_errors = answer.get("node_errors") or {}
    for node, found in node_errors.items():
        for one in found["errors"]:
            lines.append(f"node {node} ({found['class_type']}): {one['message']}: {one['details']}")
    return PromptError("\n".join(lines), node_errors)


def failure(entry):
    """What a failed prompt tells, from the messages in its history entry."""
    for kind, said in entry["status"]["messages"]:
        if kind == "execution_error":
            text = f"node {said['node_id']} ({said['node_type']}): {said['exception_message'].strip()}"
            return PromptError(text, {said["node_id"]: said})
        if kind == "execution_interrupted":
            return PromptError("the graph was interrupted")
    return PromptError("the server gives no reason")


def make_base(base, packs):
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    # Without it the first page load covers the canvas with a dialog.
    (base / "user/default/comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
    for name, path in packs.items():
        link_pack(Path(path).resolve(), base / "custom_nodes" / name)


def link_pack(pack, place):
    """Link the pack, or copy it where links are not allowed (Windows without developer mode)."""
    if place.is_symlink():
        if place.resolve() == pack:
            return
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:
        shutil.copytree(pack, place, ignore=shutil.ignore_patterns(".*", "__pycache__", "output"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
