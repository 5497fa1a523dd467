"""The tools of the browser tests: found, installed where that can be, and said to be missing where not."""

import os

import pytest
from setup import browser
from setup.steps import SetupError


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Makes tools, shell scripts in the only folder on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.delenv("NODE_PATH", raising=False)
    monkeypatch.setattr(browser, "GLOBAL_MODULES", ())

    def make(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return make


# Finds playwright-core as Node does: in a folder of NODE_PATH.
NODE = 'for folder in $(IFS=:; echo $NODE_PATH); do [ -e "$folder/playwright-core" ] && exit 0; done; exit 1'


def test_what_is_missing_is_said_one_by_one(tmp_path, tools, monkeypatch):
    with pytest.raises(SetupError, match="Node.js is missing; to run them: install"):
        browser.found(tmp_path)
    tools("node", NODE)
    with pytest.raises(SetupError, match=r"Chromium is missing; to run them: python tests/run.py test --browser"):
        browser.found(tmp_path)
    monkeypatch.setenv("CHROMIUM", "/opt/chromium")
    with pytest.raises(SetupError, match=rf"npm install --prefix {tmp_path} {browser.PLAYWRIGHT}"):
        browser.found(tmp_path)
    (tmp_path / "node_modules/playwright-core").mkdir(parents=True)
    there = browser.found(tmp_path)
    assert there["CHROMIUM"] == "/opt/chromium" and there["NODE_PATH"] == str(tmp_path / "node_modules")


def test_a_chromium_on_the_path_is_found(tmp_path, tools):
    tools("google-chrome", "")
    assert browser.chromium() == str(tmp_path / "bin/google-chrome")
    tools("chromium", "")
    assert browser.chromium() == str(tmp_path / "bin/chromium")


class Run:
    """Stands in for the running of commands: notes them and ends as told."""

    def __init__(self, code=0):
        self.calls, self.code = [], code

    def __call__(self, command, log, env):
        assert env["DEBIAN_FRONTEND"] == "noninteractive"
        self.calls.append(" ".join(map(str, command)))
        log.write(b"no network\n")
        log.flush()
        return self.code


@pytest.fixture
def nothing_there(tools, monkeypatch):
    """A Debian with npm, and root."""
    tools("node", NODE)
    tools("npm", "")
    monkeypatch.setattr(browser, "can_apt", lambda: True)


@pytest.mark.usefixtures("nothing_there")
def test_both_are_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "run", ran := Run())
    browser.install(tmp_path)
    update, chromium, playwright = ran.calls
    assert update.startswith("apt-get -qq") and update.endswith(" update")
    assert chromium.endswith(" install --yes --no-install-recommends chromium")
    assert playwright.startswith("npm install ") and playwright.endswith(f"--prefix {tmp_path} {browser.PLAYWRIGHT}")


@pytest.mark.usefixtures("nothing_there")
def test_what_is_there_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(browser, "run", ran := Run())
    monkeypatch.setenv("CHROMIUM", "/opt/chromium")
    (tmp_path / "node_modules/playwright-core").mkdir(parents=True)
    browser.install(tmp_path)
    assert ran.calls == []


@pytest.mark.usefixtures("nothing_there")
def test_a_failure_is_said_and_not_fatal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(browser, "run", ran := Run(code=100))
    browser.install(tmp_path)
    assert len(ran.calls) == 2, "apt-get goes on after a failed update, or npm is not tried"
    said = capsys.readouterr().out
    assert "chromium could not be installed (log: " in said and "no network" in said
    assert "playwright-core could not be installed (log: " in said


def test_without_the_means_it_says_so(tmp_path, tools, monkeypatch, capsys):
    monkeypatch.setattr(browser, "run", ran := Run())
    tools("node", NODE)
    browser.install(tmp_path)
    said = capsys.readouterr().out
    assert "Chromium is not installed: that takes apt-get" in said
    assert "playwright-core is not installed: that takes npm" in said
    assert ran.calls == []


def test_apt_takes_root(tools, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert not browser.can_apt()
    tools("apt-get", "")
    assert browser.can_apt()
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert not browser.can_apt()
