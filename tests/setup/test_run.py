"""What run.py decides without a network: pins, archives, stamps, options; and canvas files."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import run
from setup import environment, hosts, rooms
from setup.host_server import failure, link_pack, pictures, refusal
from setup.steps import SetupError, done, locked, mark
from support import canvas

TESTS = Path(__file__).parents[1]


def tar(path, *names, link=None):
    with tarfile.open(path, "w:gz") as opened:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            opened.addfile(entry, io.BytesIO(b"hi\n"))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, ".."
            opened.addfile(entry)
    return path


def wheel(path, *names):
    with zipfile.ZipFile(path, "w") as opened:
        for name in names:
            opened.writestr(name, "hi\n")
    return path


def test_a_wrong_hash_is_refused(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", "a/main.py")
    hosts.check(archive, hashlib.sha256(archive.read_bytes()).hexdigest())
    with pytest.raises(SetupError, match="not the file that was pinned"):
        hosts.check(archive, "0" * 64)


@pytest.mark.parametrize("make", [tar, wheel])
def test_only_the_wanted_folder_is_unpacked(tmp_path, make):
    archive = make(tmp_path / "archive", "a/README", "a/host/main.py", "a/host/comfy/sd.py", "a/hosts/x.py")
    hosts.unpack(archive, "a/host", tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py")}
    assert found == {"main.py", "comfy/sd.py"}
    assert (tmp_path / "out/main.py").read_text() == "hi\n"


@pytest.mark.parametrize("make", [tar, wheel])
@pytest.mark.parametrize("name", ["../evil", "a/host/../../../evil", "/evil", "C:/evil", "a/host\\..\\evil"])
def test_names_that_leave_the_folder_are_refused(tmp_path, make, name):
    archive = make(tmp_path / "archive", "a/host/main.py", name)
    with pytest.raises(SetupError, match="unsafe"):
        hosts.unpack(archive, "a/host", tmp_path / "deep/out")
    assert not list(tmp_path.rglob("*evil*"))


def test_links_in_archives_are_refused(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", "a/host/main.py", link="a/host/out")
    with pytest.raises(SetupError, match="link"):
        hosts.unpack(archive, "a/host", tmp_path / "out")


def test_an_archive_without_the_folder_is_refused(tmp_path):
    with pytest.raises(SetupError, match="no folder a/host"):
        hosts.unpack(tar(tmp_path / "a.tar.gz", "a/README"), "a/host", tmp_path / "out")


def test_a_stamp_holds_its_pins(tmp_path):
    stamp = tmp_path / "torch.stamp"
    assert not done(stamp, ["torch==1"])
    mark(stamp, ["torch==1"])
    assert done(stamp, ["torch==1"])
    assert not done(stamp, ["torch==2"])


class Pip:
    """Stands in for pip: notes its calls and ends as told."""

    def __init__(self, code=0):
        self.calls, self.code = [], code

    def __call__(self, cache, python, name, *arguments):
        self.calls.append(arguments)
        environment.log_file(cache, name).write_text("pip: NewConnectionError\n")
        if isinstance(self.code, BaseException):
            raise self.code
        return self.code


@pytest.fixture
def python(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "check_space", lambda *_: None)
    place = tmp_path / "venv/bin/python"
    place.parent.mkdir(parents=True)
    return place


def test_a_finished_step_calls_pip_once_per_pin(tmp_path, monkeypatch, python):
    pip = Pip()
    monkeypatch.setattr(environment, "pip", pip)
    for pins in (["torch==1"], ["torch==1"], ["torch==2"]):
        environment.install(tmp_path, python, "torch", pins)
    assert pip.calls == [("install", "torch==1"), ("install", "torch==2")]


def test_a_failed_step_is_told_and_not_stamped(tmp_path, monkeypatch, python):
    monkeypatch.setattr(environment, "pip", Pip(code=1))
    with pytest.raises(SetupError, match="could not be reached"):
        environment.install(tmp_path, python, "torch", ["torch==1"])
    assert not list(tmp_path.rglob("*.stamp"))
    assert not environment.interrupted(tmp_path / "venv").exists()


def test_a_killed_pip_leaves_a_sign(tmp_path, monkeypatch, python):
    monkeypatch.setattr(environment, "pip", Pip(code=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        environment.install(tmp_path, python, "torch", ["torch==1"])
    assert environment.interrupted(tmp_path / "venv").exists()


def test_too_little_room_is_told_first(tmp_path):
    with pytest.raises(SetupError, match="GB are free"):
        environment.check_space(tmp_path, 10**9)


def test_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PERSONALIZATION_CACHE", raising=False)
    assert environment.cache_folder() == tmp_path / "xdg/comfyui-personalization"
    monkeypatch.setenv("PERSONALIZATION_CACHE", str(tmp_path / "own"))
    assert environment.cache_folder() == tmp_path / "own"
    assert environment.cache_folder(str(tmp_path / "chosen")) == tmp_path / "chosen"


def test_only_one_process_sets_up(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from setup.steps import try_lock; "
    code += "sys.exit(not try_lock(open(sys.argv[2], 'a+b')))"
    second = [sys.executable, "-c", code, str(TESTS), str(tmp_path / "lock")]
    with locked(tmp_path):
        assert subprocess.run(second).returncode == 1
    assert subprocess.run(second).returncode == 0


def test_options():
    options = run.parse(["test", "--host", "0.3.75", "--gpu", "--", "-k", "mrsa", "--", "x"])
    assert (options.command, options.host, options.cpu) == ("test", "0.3.75", False)
    assert options.rest == ["-k", "mrsa", "--", "x"]
    plain = run.parse(["demo"])
    assert (plain.host, plain.cpu, plain.port, plain.rest) == (hosts.NEWEST, None, None, [])


@pytest.mark.parametrize(
    "rest, chosen, few",
    [
        ([], ["tests", "-m", "not slow"], False),
        (["-k", "mrsa"], ["tests", "-m", "not slow"], False),
        (["-q", "tests/kernels"], [], False),
        (["tests/setup/test_run.py::test_options", "-q"], [], True),
    ],
)
def test_which_tests_are_run(rest, chosen, few):
    assert run.selection(run.parse(["test", "--", *rest])) == (chosen, few)


def test_a_short_run(capsys):
    options = run.parse(["test", "--host", "0.3.75", "--short", "--", "-q"])
    assert run.selection(options) == ([*rooms.on_older_hosts(), "-m", "not slow"], False)
    said = capsys.readouterr().out
    assert "what is marked slow; test --whole has it" in said and "all but golden cases, nodes, seams" in said
    options = run.parse(["test", "--short", "--", "tests/server"])
    assert run.selection(options) == (["-m", "not slow"], False)


def test_a_whole_run(capsys):
    assert run.selection(run.parse(["test", "--whole"])) == (["tests"], False)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("wrong", [[], ["dance"], ["test", "--cpu", "--gpu"], ["test", "--python", "x"]])
def test_wrong_options(wrong, capsys):
    with pytest.raises(SystemExit):
        run.parse(wrong)


def installation(folder, *pythons):
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    for place in pythons:
        path = folder / (place if place.endswith(".exe") else f"{place}/{inside}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize("place", ["venv", ".venv", "../venv", "../.venv", "../python_embeded/python.exe"])
def test_the_python_of_an_existing_installation(tmp_path, place):
    host = installation(tmp_path / "ComfyUI", place)
    assert hosts.find_existing(host) == host
    # A portable package has ComfyUI in a folder of its own.
    assert hosts.find_existing(tmp_path) == host
    assert host.parent in hosts.find_python(host).resolve().parents


def test_without_one_our_own_python_is_taken(tmp_path):
    assert hosts.find_python(installation(tmp_path / "ComfyUI")) == Path(sys.executable)
    with pytest.raises(SetupError, match="no ComfyUI"):
        hosts.find_existing(tmp_path / "elsewhere")


def test_what_the_server_says_of_a_bad_graph():
    body = b"""{"error": {"message": "failed validation", "details": ""}, "node_errors": {"3": {"class_type": "Load",
        "errors": [{"message": "Value not in list", "details": "file: 'x'"}]}}}"""
    assert "node 3 (Load): Value not in list: file: 'x'" in str(refusal(body))
    said = {"node_id": "4", "node_type": "KSampler", "exception_message": "too large\n"}
    entry = {"status": {"messages": [["execution_start", {}], ["execution_error", said]]}}
    assert str(failure(entry)) == "node 4 (KSampler): too large"


def test_pictures_of_a_history_entry():
    entry = {"outputs": {"9": {"images": ["b", "c"]}, "2": {"text": ["x"]}, "10": {"images": ["a"]}}}
    assert pictures(entry) == [("9", "b"), ("9", "c"), ("10", "a")]


def test_a_pack_is_linked_anew(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        link_pack(tmp_path / name, tmp_path / "link")
        assert (tmp_path / "link/file").read_text() == name


OBJECT_INFO = {
    "Load": {"input": {"required": {"file": [["a", "b"], {}]}}, "output": ["MODEL"]},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
            },
            "optional": {"text": ["STRING", {"forceInput": True}], "mode": ["COMBO", {"options": ["x", "y"]}]},
        },
        "output": ["IMAGE"],
    },
}


def workflow():
    """Load -> Reroute -> Sample, with a primitive that feeds the steps and a note."""
    return {
        "nodes": [
            {"id": 1, "type": "Load", "outputs": [socket("MODEL", links=[1])], "widgets_values": ["b"]},
            {
                "id": 2,
                "type": "Reroute",
                "inputs": [socket("", link=1, kind="*")],
                "outputs": [socket("MODEL", links=[2])],
            },
            {
                "id": 3,
                "type": "Sample",
                "inputs": [socket("model", link=2, kind="MODEL"), socket("steps", link=3, kind="INT")],
                "outputs": [socket("IMAGE", links=None)],
                "widgets_values": [7, "fixed", 4, "y"],
            },
            {"id": 4, "type": "PrimitiveNode", "outputs": [socket("INT", links=[3])], "widgets_values": [4, "fixed"]},
            {"id": 5, "type": "Note", "widgets_values": ["hello"]},
        ],
        "links": [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 0, 3, 0, "MODEL"], [3, 4, 0, 3, 1, "INT"]],
    }


def socket(name, kind=None, **link):
    return {"name": name, "type": kind or name, **link}


def test_canvas_to_api():
    assert canvas.to_api(workflow(), OBJECT_INFO) == {
        "1": {"class_type": "Load", "inputs": {"file": "b"}},
        "3": {"class_type": "Sample", "inputs": {"model": ["1", 0], "seed": 7, "steps": 4, "mode": "y"}},
    }


def test_muted_nodes_are_left_out():
    muted = workflow()
    muted["nodes"][0]["mode"] = canvas.MUTED
    assert canvas.to_api(muted, OBJECT_INFO)["3"]["inputs"] == {"seed": 7, "steps": 4, "mode": "y"}


def test_bypassed_nodes_are_refused():
    bypassed = workflow()
    bypassed["nodes"][0]["mode"] = 4
    with pytest.raises(ValueError, match="bypassed"):
        canvas.to_api(bypassed, OBJECT_INFO)


def test_a_good_canvas_has_no_problems():
    assert canvas.problems(workflow(), OBJECT_INFO) == []


def edits():
    """(what is wrong, how to make it so) for a good workflow."""
    yield "unknown type", lambda it: it["nodes"][0].update(type="Gone")
    yield "Link 2 is None in the list", lambda it: it["links"].pop(1)
    yield "Link 1 is", lambda it: it["links"][0].__setitem__(3, 3)
    yield "Link 9 is", lambda it: it["nodes"][0]["outputs"][0]["links"].append(9)
    yield "Link 1 is listed twice", lambda it: it["links"].append(it["links"][0])
    yield "Two nodes have the id 5", lambda it: it["nodes"].append(it["nodes"][4])
    yield "joins MODEL to INT", lambda it: it["nodes"][3]["outputs"][0].update(type="MODEL")
    yield "3 widget values, its type asks for 4", lambda it: it["nodes"][2]["widgets_values"].pop()
    yield 'has seed on "randomize"', lambda it: it["nodes"][2]["widgets_values"].__setitem__(1, "randomize")
    yield "an input colour that its type lacks", lambda it: it["nodes"][2]["inputs"].append(socket("colour"))
    yield "an output X that its type lacks", lambda it: it["nodes"][0]["outputs"].append(socket("X", links=[1]))


@pytest.mark.parametrize("wrong, edit", [pytest.param(*edit, id=edit[0]) for edit in edits()])
def test_problems_of_a_canvas(wrong, edit):
    bad = workflow()
    edit(bad)
    found = canvas.problems(bad, OBJECT_INFO)
    assert any(wrong in sentence for sentence in found), found


def test_new_values_leave_links_alone():
    graph = canvas.to_api(workflow(), OBJECT_INFO)
    changed = canvas.with_values(graph, {canvas.ALL: {"seed": 8, "model": "x", "width": 64}, "Load": {"seed": 9}})
    assert changed["3"]["inputs"] == {"model": ["1", 0], "seed": 8, "steps": 4, "mode": "y"}
    assert graph["3"]["inputs"]["seed"] == 7
    assert canvas.with_values(graph, {"Load": {"file": "c"}, "Sample": {"steps": 1}}) == {
        "1": {"class_type": "Load", "inputs": {"file": "c"}},
        "3": {"class_type": "Sample", "inputs": {"model": ["1", 0], "seed": 7, "steps": 1, "mode": "y"}},
    }


def test_small_values_leave_shares_alone():
    """The width of a box is a share of the picture, that of a latent is in pixels."""
    sizes = {"width": 0.5, "height": 1.0}
    graph = {
        "1": {"class_type": "PersonalizationBoxMask", "inputs": sizes},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": ["3", 0], "batch_size": 4}},
        "3": {"class_type": "PersonalizationRedenoise", "inputs": {"steps": 50}},
    }
    small = canvas.with_values(graph, canvas.small(side=64, steps=2))
    assert small["1"]["inputs"] == sizes and small["3"]["inputs"] == {"steps": 50}
    assert small["2"]["inputs"] == {"width": 64, "height": ["3", 0], "batch_size": 1}
