"""The tools of the browser tests, found where they are or installed: Chromium, and playwright-core, which drives it."""

import os
import shutil
import subprocess

from setup.environment import log_file
from setup.steps import SetupError, clean_environment, last_lines, run, say, step

PLAYWRIGHT = "playwright-core@1.64.1"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
GLOBAL_MODULES = ("/usr/local/lib/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs")
HOW = "to run them: python tests/run.py test --browser (as root on Debian), or"


def chromium():
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)


def node_path(cache):
    """Where Node looks for playwright-core."""
    folders = [os.environ.get("NODE_PATH"), str(cache / "node_modules"), *GLOBAL_MODULES]
    return os.pathsep.join(filter(None, folders))


def has_playwright(cache):
    node = shutil.which("node")
    look = [node, "-e", "require.resolve('playwright-core')"]
    environment = dict(os.environ, NODE_PATH=node_path(cache))
    return bool(node) and subprocess.run(look, env=environment, capture_output=True).returncode == 0


def found(cache):
    """The environment for canvas.mjs; a SetupError says what is missing and how to get it."""
    if not shutil.which("node"):
        raise SetupError("Node.js is missing; to run them: install Node.js 20 or newer")
    if not chromium():
        raise SetupError(f"Chromium is missing; {HOW} name one in CHROMIUM")
    if not has_playwright(cache):
        raise SetupError(f"playwright-core is missing; {HOW} npm install --prefix {cache} {PLAYWRIGHT}")
    return dict(os.environ, CHROMIUM=chromium(), NODE_PATH=node_path(cache))


def install(cache):
    """What is missing and can be had here; what cannot is said, and the tests that need it are left out."""
    if not chromium():
        if can_apt():
            apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
            update, chosen = [*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", "chromium"]
            attempt(cache, "chromium", update, chosen)
        else:
            say("Chromium is not installed: that takes apt-get, and root to run it.")
    if not has_playwright(cache):
        if shutil.which("npm"):
            quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
            attempt(cache, "playwright-core", ["npm", "install", *quiet, "--prefix", cache, PLAYWRIGHT])
        else:
            say("playwright-core is not installed: that takes npm, of Node.js 20 or newer.")


def can_apt():
    return bool(shutil.which("apt-get")) and os.geteuid() == 0


def attempt(cache, name, *commands):
    """Run commands up to the first that fails, and say so if one does."""
    with step(f"Installing {name}"), log_file(cache, name).open("wb") as log:
        environment = clean_environment(DEBIAN_FRONTEND="noninteractive")
        if any(run(command, log=log, env=environment) for command in commands):
            say(f"{name} could not be installed (log: {log.name}):\n{last_lines(log.name, 5)}")
