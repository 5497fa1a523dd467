"""The rules of the pack's shape that a machine can check. Each is a function of a tree, tried on a broken one too."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from PIL import Image
from registry_pictures import BANNER, ICON
from support.canvas import shows
from support.house import House
from support.nodes_table import NODES, TECHNIQUES
from thumbnails import ALONE, ELSEWHERE, SHOWN, SIDE, TOUR

ROOT = Path(__file__).parent.parent
TOP = {"__init__.py", "nodes", "kernels", "README.md", "pyproject.toml", "workflows", "tests", "LICENSE"}
# Which room may import which, beside `host`, `files` and the kernels, which all may. No circle may come of it.
MAY_IMPORT = {
    "reference_attention": {"inversion", "references"},
    "faces": {"references"},
    "image_adapters": {"references"},
    "image_prompts": {"references", "image_adapters", "faces"},
    "masks": {"inversion"},
    "panels": {"references"},
    "editing": {"image_prompts", "inversion", "latent_guidance", "reference_attention", "references"},
    "concept_conductor": {"inversion", "latent_guidance", "row_adapters", "text_contexts"},
    "weight_deltas": {"row_adapters", "text_contexts"},
    "training": {"latent_guidance", "text_contexts"},
}
# What every room may import, and those two themselves.
BELOW = {"host": set(), "files": {"host"}}
# Names of ComfyUI's insides, each with the one file that may say it.
INSIDES = {
    "_forward": "calls.py",
    "activations_shape": "calls.py",
    "cond_or_uncond": "calls.py",
    "sample_sigmas": "calls.py",
    "sigmas": "calls.py",
    "patches_replace": "calls.py",
    "add_wrapper_with_key": "attach.py",
    "send_progress_text": "messages.py",
    "getLogger": "messages.py",
    "set_model_attn1_replace": "attach.py",
    "set_model_attn2_replace": "attach.py",
}
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "node_helpers"}
HEAVY = {"diffusers", "transformers", "insightface", "triton", "onnxruntime", "cv2", "skimage"}
LINES, FUNCTION_LINES, PARAMETERS = 200, 40, 8
# A table and a list of inputs, as long as the node has sockets; and the host's own signatures.
OF_THE_HOST = ("define_schema", "execute", "sample")
# Every module may have these.
COMMON = {"log", "NODES"}
# What ComfyUI and the pack's entry point look for.
LOOKED_FOR = {"PersonalizationPack", "NODES", "WEB_DIRECTORY"}


def rule_rooms(house):
    """1. The rooms' imports follow the table and make no circle; `host` imports no room, `files` only the messages."""
    for file in house.product:
        for target in file.imported_rooms:
            allowed = BELOW.get(file.room)
            if allowed is None:
                allowed = MAY_IMPORT.get(file.room, set()) | set(BELOW)
            if file.room is not None and target not in {*allowed, "kernels", "", file.room}:
                yield f"{file.path}: {file.room} imports {target}"
        if file.room == "files":
            yield from (f"{file.path}: files imports host.{m}" for m in file.imported_of("host") if m != "messages")
        if file.room in (*BELOW, "kernels") and "" in file.imported_rooms:
            yield f"{file.path}: {file.room} imports the graph floor"
        if file.room == "kernels" and file.imported_rooms - {"kernels"}:
            yield f"{file.path}: a kernel imports a room"
    done, left = set(), {room: set(house.graph.get(room, ())) - {room} for room in house.rooms}
    while free := {room for room, targets in left.items() if targets <= done}:
        done |= free
        left = {room: targets for room, targets in left.items() if room not in free}
    if left:
        yield f"a circle among {', '.join(sorted(left))}"


def rule_floors(house):
    """2. `comfy_api` only where sockets are; a node file imports neither ComfyUI's insides nor kernels nor layers."""
    for file in house.product:
        graph = file.name.endswith(("_node.py", "_wire.py", "_widgets.py")) or file.room is None
        roots = {module.split(".")[0] for module in file.imports}
        if "comfy_api" in roots and not graph:
            yield f"{file.path}: sockets belong into a node file, a wire or its widgets"
        if file.name.endswith("_node.py") and (roots & {"comfy", "torch"} or "kernels" in file.imported_rooms):
            yield f"{file.path}: a node file computes nothing"
        if file.room == "kernels" and roots & HOST:
            yield f"{file.path}: a kernel imports ComfyUI"
        if roots & {"nodes", "kernels"}:
            yield f"{file.path}: an absolute import of the pack"


def rule_names(house):
    """3. No two files have one name, and no two modules one public name."""
    seen = {}
    for file in house.product:
        if file.name != "__init__.py":
            yield from _twice(seen, ("file", file.name), file)
        for name in file.public - COMMON:
            yield from _twice(seen, ("name", name), file)


def _twice(seen, key, file):
    if key in seen:
        yield f"{file.path} and {seen[key].path} both have the {key[0]} {key[1]}"
    seen[key] = file


def rule_insides(house):
    """4. A name of ComfyUI's insides stands in one file of `host` alone."""
    for file in house.product:
        for name in INSIDES.keys() & file.words:
            if (file.room, file.name) != ("host", INSIDES[name]):
                yield f"{file.path} says {name}, which belongs into nodes/host/{INSIDES[name]}"


def rule_tables(house):
    """5. Every node file is in the table of contents, and every room has its tests."""
    for file in house.product:
        if file.name.endswith("_node.py") and f"*{file.name.removesuffix('.py')}.NODES" not in house.contents:
            yield f"{file.path} is not in NODES"
    for room in house.rooms:
        if not any((house.root / "tests" / room).glob("test_*.py")):
            yield f"tests/{room} holds no test"


def rule_size(house):
    """6. Small files, small functions, few parameters."""
    for file in house.product:
        if file.text.count("\n") > LINES:
            yield f"{file.path}: {file.text.count(chr(10))} lines"
        for function in file.functions:
            if function.name in OF_THE_HOST:
                continue
            lines = function.end_lineno - function.lineno + 1
            arguments = function.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if lines > FUNCTION_LINES:
                yield f"{file.path} {function.name}: {lines} lines"
            # a formula has as many inputs as it has
            if count > PARAMETERS and file.room != "kernels":
                yield f"{file.path} {function.name}: {count} parameters"


def rule_unused(house):
    """7. No module has a public name that nobody uses."""
    uses = {}
    for file in house.product:
        for name in file.names_in_order:
            uses[name] = uses.get(name, 0) + 1
    for file in house.product:
        for name in file.public - LOOKED_FOR:
            if uses.get(name, 0) < 2:
                yield f"{file.path}: nobody uses {name}"


def rule_scanner(house):
    """8. Read as the manager's scanner does, by its source alone, each node is found, and none that is not there."""
    for file in house.product:
        for node in file.classes:
            bases = [ast.unparse(base) for base in node.bases]
            ids = [
                keyword.value
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Schema")
                for keyword in call.keywords
                if keyword.arg == "node_id"
            ]
            if ids and (bases != ["io.ComfyNode"] or not isinstance(ids[0], ast.Constant)):
                yield f"{file.path} {node.name}: a node derives from io.ComfyNode itself and names its id as it is"
            if "io.ComfyNode" in bases and not ids:
                yield f"{file.path} {node.name}: looks like a node and has no schema of its own"


def rule_errors(house):
    """9. A docstring says ValueError where the body raises one."""
    makers = {"ValueError", "input_error", *(name for file in house.product for name in file.makers_of("input_error"))}
    for file in house.product:
        for function in file.functions:
            raised = [
                node
                for node in ast.walk(function)
                if isinstance(node, ast.Raise) and node.exc is not None and _is_call_of(makers, node.exc)
            ]
            public = not function.name.startswith("_") and function.name not in OF_THE_HOST
            if raised and public and "ValueError" not in (file.docstring_of(function) or ""):
                yield f"{file.path} {function.name}: its docstring does not say when it raises ValueError"


def _is_call_of(names, raised):
    return isinstance(raised, ast.Call) and ast.unparse(raised.func) in names


def rule_words(house):
    """Every file and every public function and class says what it is; node files leave that to their schema."""
    for file in house.product:
        if not ast.get_docstring(file.tree):
            yield f"{file.path} does not say what it is"
        if file.name.endswith("_node.py") or file.room is None:
            continue
        for node in file.tree.body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if named and not ast.get_docstring(node):
                yield f"{file.path}: {node.name} does not say what it does"


def rule_safety(house):
    """No bare except, nothing printed or run from text, no unsafe reading, no network, nothing heavy at import."""
    for file in house.product:
        if {module.split(".")[0] for module in file.top_imports} & HEAVY:
            yield f"{file.path} imports a heavy package before its use"
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield f"{file.path}: a bare except"
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            # the one reader does, and says that nothing may run
            safe = file.name == "plain_pickles.py" and "weights_only=True" in ast.unparse(node)
            unsafe = called == "torch.load" and not safe
            if called in ("print", "eval", "exec") or unsafe or called.endswith(".cuda"):
                yield f"{file.path} calls {called}"
        for pattern in (
            r"weights_only\s*=\s*False",
            r"\b(requests|urllib|http\.client|huggingface_hub)\b",
            r"\bTODO\b",
        ):
            if re.search(pattern, file.text):
                yield f"{file.path} holds {pattern}"
        # reviewers of the registry refuse what other code pages cannot show
        if file.room != "kernels" and file.text.encode("cp1252", errors="replace").decode("cp1252") != file.text:
            yield f"{file.path} holds letters beyond code page 1252"


RULES = [value for name, value in list(globals().items()) if name.startswith("rule_")]


@pytest.fixture(scope="module")
def house():
    return House(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(house, rule):
    assert list(rule(house)) == []


# {rule: [(file of a made-up pack, its text, what is said of it)]}
BREACHES = {
    rule_rooms: [
        ("nodes/host/x.py", "from ..masks import mask\n", "host imports masks"),
        ("nodes/files/x.py", "from ..host.rows import y\n", "files imports host.rows"),
        ("nodes/references/x.py", "from ..masks import mask\n", "references imports masks"),
        ("nodes/host/x.py", "from ..widgets import x\n", "imports the graph floor"),
        ("kernels/x.py", "from ..nodes.masks import mask\n", "a kernel imports a room"),
    ],
    rule_floors: [
        ("nodes/masks/x.py", "from comfy_api.latest import io\n", "sockets belong"),
        ("nodes/masks/x_node.py", "import comfy.utils\n", "a node file computes nothing"),
        ("nodes/masks/x_node.py", "from ...kernels.x import y\n", "a node file computes nothing"),
        ("nodes/masks/x_node.py", "import torch\n", "a node file computes nothing"),
        ("kernels/x.py", "import folder_paths\n", "a kernel imports ComfyUI"),
        ("nodes/masks/x.py", "import nodes.masks\n", "an absolute import"),
    ],
    rule_names: [
        ("nodes/host/mask.py", "", "both have the file mask.py"),
        ("nodes/host/x.py", "def mask_of():\n    pass\n", "both have the name mask_of"),
    ],
    rule_insides: [
        ("nodes/host/x.py", 'a = options["sigmas"]\n', "belongs into nodes/host/calls.py"),
        ("nodes/masks/x.py", "unet._forward()\n", "belongs into nodes/host/calls.py"),
        ("nodes/masks/x.py", "model.add_wrapper_with_key()\n", "belongs into nodes/host/attach.py"),
    ],
    rule_tables: [
        ("nodes/masks/x_node.py", "NODES = []\n", "is not in NODES"),
        ("nodes/attic/x.py", "", "tests/attic holds no test"),
    ],
    rule_size: [
        ("nodes/masks/x.py", "\n" * 201, "201 lines"),
        ("nodes/masks/x.py", "def f():\n" + "    1\n" * 40, "f: 41 lines"),
        ("nodes/masks/x.py", "def f(a, b, c, d, e, g, h, i, *, j):\n    pass\n", "9 parameters"),
    ],
    rule_unused: [("nodes/masks/x.py", "LEFT_OVER = 1\n", "nobody uses LEFT_OVER")],
    rule_scanner: [
        ("nodes/masks/x_node.py", 'class A(_Base):\n    io.Schema(node_id="A")\n', "derives from io.ComfyNode itself"),
        ("nodes/masks/x_node.py", "class A(io.ComfyNode):\n    schema.Schema(node_id=NAME)\n", "names its id"),
        ("nodes/masks/x_node.py", "class _Base(io.ComfyNode):\n    pass\n", "looks like a node"),
    ],
    rule_errors: [
        ("nodes/masks/x.py", 'def f():\n    """Does."""\n    raise input_error("no")\n', "does not say when"),
        ("nodes/masks/x.py", 'def f():\n    """Does."""\n    raise ValueError("no")\n', "does not say when"),
        ("nodes/masks/x.py", "def g():\n    return input_error(1)\n\n\ndef f():\n    raise g()\n", "f: its docstring"),
    ],
    rule_words: [
        ("nodes/masks/x.py", "x = 1\n", "does not say what it is"),
        ("nodes/masks/x.py", '"""X."""\n\n\ndef f():\n    pass\n', "f does not say what it does"),
    ],
    rule_safety: [
        ("nodes/masks/x.py", "import diffusers\n", "a heavy package"),
        ("nodes/masks/x.py", "try:\n    pass\nexcept:\n    pass\n", "a bare except"),
        ("nodes/masks/x.py", "print(1)\n", "calls print"),
        ("nodes/masks/x.py", "torch.load(path, weights_only=True)\n", "calls torch.load"),
        ("nodes/files/plain_pickles.py", "torch.load(path)\n", "calls torch.load"),
        ("nodes/masks/x.py", "import requests\n", "requests"),
        ("nodes/masks/x.py", "# \u03c3\n", "code page 1252"),
    ],
}


@pytest.fixture
def made_up(tmp_path):
    """A pack of one room that keeps all rules, as {file: text} written to a folder."""
    files = {
        "__init__.py": '"""The pack."""\n',
        "nodes/__init__.py": '"""Contents."""\n\nfrom .masks import mask_node\n\nNODES = [*mask_node.NODES]\n',
        "nodes/widgets.py": '"""Widgets."""\n',
        "nodes/host/__init__.py": '"""The host."""\n',
        "nodes/host/messages.py": '"""Messages."""\n',
        "nodes/files/__init__.py": '"""Files."""\n',
        "nodes/masks/__init__.py": '"""Masks."""\n',
        "nodes/masks/mask.py": '"""A mask."""\n\n\ndef mask_of():\n    """A mask."""\n\n\n_used = mask_of\n',
        "nodes/masks/mask_node.py": '"""Its node."""\n\nfrom .mask import mask_of\n\nNODES = [mask_of]\n',
        "kernels/__init__.py": '"""Kernels."""\n',
        **{f"tests/{room}/test_x.py": "" for room in ("host", "files", "masks", "references")},
    }
    for name, text in files.items():
        _write(tmp_path / name, text)
    return tmp_path


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_pack_that_keeps_the_rules_breaks_none(made_up):
    assert [said for rule in RULES for said in rule(House(made_up))] == []


def test_every_rule_is_tried_on_a_breach():
    assert set(BREACHES) == set(RULES)


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        pytest.param(rule, breach, id=f"{rule.__name__}, {breach[2]}")
        for rule, several in BREACHES.items()
        for breach in several
    ],
)
def test_each_breach_is_seen(rule, breach, made_up):
    name, text, said = breach
    _write(made_up / name, text)
    found = list(rule(House(made_up)))
    assert any(said in one for one in found), found


def test_a_circle_is_seen(made_up, monkeypatch):
    monkeypatch.setitem(MAY_IMPORT, "masks", {"references"})
    monkeypatch.setitem(MAY_IMPORT, "references", {"masks"})
    _write(made_up / "nodes/references/x.py", "from ..masks.mask import mask_of\n")
    assert not list(rule_rooms(House(made_up)))
    _write(made_up / "nodes/masks/y.py", "from ..references.x import z\n")
    assert any("a circle among masks, references" in said for said in rule_rooms(House(made_up)))


# beside the code


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_top_level():
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP


def test_the_map_in_readme_is_the_house(house):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `nodes/(\w+)/`", text, re.M))
    assert named - {"web"} == house.rooms


def test_every_room_says_what_the_map_says_of_it(house):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for room, line in re.findall(r"^\| `nodes/(\w+)/` \| (.+) \|$", text, re.M):
        if room in house.rooms:
            tree = ast.parse((ROOT / "nodes" / room / "__init__.py").read_text(encoding="utf-8"))
            said = " ".join(ast.get_docstring(tree).split())
            assert said == f"{line[0].upper()}{line[1:]}.", room


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_each_technique_has_its_files(technique):
    assert [pattern for pattern in technique.files() if not list(ROOT.glob(pattern))] == []
    assert f"workflows/{quote(technique.template)}.json" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_nodes_is_the_house(house):
    """As the manager's scanner reads them: the ids in the source of the files that the table names."""
    found = {node_id: str(file.path) for file in house.product for node_id in re.findall(r'node_id="(\w+)"', file.text)}
    assert found == {node_id: f"nodes/{node.file}" for node_id, node in NODES.items()}


def test_every_template_has_its_thumbnail_and_its_twin():
    for path in (ROOT / "workflows").glob("*.json"):
        assert (path.parent / "api" / path.name).is_file(), path.name
        # the template browser shows squares
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.size == (SIDE, SIDE), path.name


def test_thumbnails_are_drawn_for_every_template():
    assert {*SHOWN, *ALONE, *ELSEWHERE} == {path.stem for path in (ROOT / "workflows").glob("*.json")}
    titles = {template: titles_of(template) for template in {run for pairs in SHOWN.values() for run, *_ in pairs}}
    for run, *pair in (pair for pairs in SHOWN.values() for pair in pairs):
        assert all(titles[run].count(title) == 1 for title in pair), (run, pair)


def titles_of(template):
    graph = json.loads((ROOT / "workflows" / "api" / f"{template}.json").read_text(encoding="utf-8"))
    return [node["_meta"]["title"] for number, node in graph.items() if number in shows(graph)]


def test_the_tour_is_the_first_template():
    # as a list in the order of names has it; where none is asked for, the order is that of the disk
    assert min(path.stem for path in (ROOT / "workflows").glob("*.json")) == TOUR


def test_every_node_is_used_by_a_workflow(house):
    used = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflows").rglob("*.json"))
    ids = {m for file in house.product for m in re.findall(r'node_id="(\w+)"', file.text)}
    assert ids and [node_id for node_id in sorted(ids) if f'"{node_id}"' not in used] == []


def test_metadata():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "\d+\.\d+\.\d+"$', text, re.M)
    assert "dependencies = []" in text, "torch, torchvision and numpy are the host's"
    assert "[tool.comfy]" in text and 'requires-comfyui = ">=0.3.75"' in text
    ignored = (ROOT / ".comfyignore").read_text(encoding="utf-8").split()
    assert "tests/" in ignored
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("GNU GENERAL PUBLIC LICENSE")


def test_readme_links_to_what_is_shipped():
    """Of the repository, what the registry's file holds: all but what .comfyignore names."""
    left = [line.rstrip("/") for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").split()]
    for page in (ROOT / "README.md", *(ROOT / "nodes").rglob("*.md"), *(ROOT / "workflows").rglob("*.md")):
        links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        for link in (unquote(link.split("#")[0]) for link in links if "://" not in link):
            target = (page.parent / link).resolve()
            assert not link or target.exists(), (page.name, link)
            assert target.relative_to(ROOT.resolve()).parts[:1] not in [(name,) for name in left], (page.name, link)


# Names that nodes of widely used packs have.
TAKEN = {"Resolution"}


def display_names(path):
    return re.findall(r'display_name="([^"]+)",\n\s+category', path.read_text(encoding="utf-8"))


def test_names_of_nodes_are_nobody_elses():
    names = [name for path in (ROOT / "nodes").rglob("*_node.py") for name in display_names(path)]
    assert len(names) > 20 and len(set(names)) == len(names)
    assert not set(names) & TAKEN


def test_the_registry_finds_its_pictures():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, size in (("Icon", ICON), ("Banner", BANNER)):
        (place,) = re.findall(rf'^{name} = "https://raw\.githubusercontent\.com/OWNER/[\w-]+/main/(.+)"$', text, re.M)
        with Image.open(ROOT / place) as picture:
            assert picture.size == size


def test_placeholders_stand_in_one_place():
    texts = [path for path in tracked() if path.suffix in (".md", ".toml", ".json", ".py")]
    named = [path.name for path in texts if "OWNER/" in path.read_text(encoding="utf-8")]
    assert set(named) == {"pyproject.toml", "test_architecture.py"}
    assert "replace `OWNER`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_seeds_of_workflows_are_fixed():
    for path in (ROOT / "workflows").glob("*.json"):
        assert "randomize" not in path.read_text(encoding="utf-8"), path.name
        assert json.loads(path.read_text(encoding="utf-8"))["version"] == 0.4


def test_no_path_of_a_machine_is_named():
    needles = [b"/" + part + b"/" for part in (b"work", b"root", b"home")]
    for path in tracked():
        if path.suffix in (".py", ".md", ".json", ".toml", ".sh", ".mjs", ""):
            data = path.read_bytes()
            assert not [needle for needle in needles if needle in data], path


def test_the_entry_point_loads_nothing():
    """Importing the pack's __init__ brings in no module beside itself."""
    entry = str(ROOT / "__init__.py")
    code = f"import sys; before = set(sys.modules); exec(open({entry!r}).read()); print(len(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"
