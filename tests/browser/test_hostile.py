"""Text of workflows and model files stays text in the front end of each ComfyUI that the pack supports.

Needs what test_canvas.py needs, and the ComfyUI versions with their front ends, which `python tests/run.py test
--browser` downloads. A planted script would set window.__hit; screenshots lie in output/.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from setup import front_ends
from setup.environment import cache_folder
from setup.host_server import Server
from support.thorough import few_of

ROOT = Path(__file__).parents[2]


def planted(where):
    return f"<img src=x data-planted onerror=window.__hit='{where}'>"


# {name: (text, what of it must be seen)}
WORDS = {
    "image": (planted("word"), "<img src=x data-planted onerror="),
    "script": ("</span><script>window.__hit='script'</script>", "</span><script>"),
    "link": ("[[planted|javascript:window.__hit='link']]", "[ [planted|javascript:"),
    "address": ("javascript:window.__hit='address'", "javascript:window.__hit="),
    "entities": ("&lt;img src=x onerror=window.__hit='entity'&gt;", "&lt;img src=x onerror="),
    "control": ("a\x1b[2J\x00b\nc\u202ed", "a\\x1b[2J\\x00b\\nc\\u202ed"),
    "long": ("k" * 100_000, "k ... k"),
}


@pytest.mark.parametrize("version", few_of(front_ends.FRONT_ENDS, "0.3.75"))
def test_text_stays_text(version, browser, tmp_path):
    host, front_end = cache_folder() / "hosts" / version, front_ends.folder_of(cache_folder(), version)
    for folder in (host, front_end):
        if not folder.is_dir():
            pytest.skip(f"{folder.name} is missing; to run it: python tests/run.py test --browser")
    write_models(tmp_path / "models")
    packs, arguments = {"comfyui-personalization": ROOT}, ["--front-end-root", str(front_end)]
    with Server(host, sys.executable, tmp_path, cpu=True, packs=packs, arguments=arguments) as server:
        told = watched(server, browser, tmp_path, version)
    seen = told["seen"]
    assert {name: one["hit"] for name, one in seen.items() if one["hit"]} == {}
    assert told["odd"] == [] and told["url"].startswith(server.url)
    assert {name: one for name, one in seen.items() if one["links"] or one["elements"]} == {}
    expected = {f"word {name}": shows for name, (_, shows) in WORDS.items()} | SHOWN
    assert [name for name, shows in expected.items() if shows not in seen[name]["text"]] == []


# What of a name must be seen where it is said, {stage: text}.
SHOWN = {
    "not listed": "onerror=window.__hit='choice'",
    "file name": "onerror=window.__hit='name'",
    "tensor": "onerror=window.__hit='tensor'",
    "report": "onerror=window.__hit='concept'",
    "warning": "onerror=window.__hit='concept'",
    "dropdown": "odd.safetensors",
}


def write_models(models):
    """Sets and files whose names, or the names in them, are hostile."""
    for place in (models / "resadapter" / planted("set"), models / "loras"):
        place.mkdir(parents=True)
    weights = {planted("tensor"): torch.ones(2)}
    save_file(weights, models / "resadapter" / planted("set") / "one.safetensors")
    save_file(weights, models / "resadapter" / f"{planted('file')}.safetensors")
    save_file(weights, models / "resadapter" / "odd.safetensors")
    words = {f"new_concept_embedding.{planted('concept')}": torch.ones(1, 768)}
    save_file(words, models / "loras" / "words.safetensors")


def stages():
    """[{name, graph, dropdown}]: each way by which a node of ours shows text."""
    model = {"m": node("PersonalizationPocketModel")}
    export = {"model": ["m", 0], "file_name": "new"}
    attach = {"model": ["m", 0], "alpha": 1.0, "norms": "auto", "norm_strength": 1.0, "link_norms": False}
    odd = node("PersonalizationResAdapter", adapter_set="odd.safetensors", **attach)
    made = {f"word {name}": reference(text) for name, (text, _) in WORDS.items()}
    made["not listed"] = model | {"a": node("PersonalizationResAdapterExport", adapter_set=planted("choice"), **export)}
    named = {"adapter_set": "odd.safetensors", **export, "file_name": planted("name")}
    made["file name"] = model | {"a": node("PersonalizationResAdapterExport", **named)}
    made["tensor"] = model | {"a": odd, "s": node("PreviewAny", source=["a", 1])}
    made["report"] = model | {"a": loader("m", 1), "s": node("PreviewAny", source=["a", 2])}
    # the second file has the words of the first
    made["warning"] = model | {"a": loader("m", 1), "b": loader("a", 1), "s": node("PreviewAny", source=["b", 0])}
    made["dropdown"] = made["tensor"]
    dropdowns = {"dropdown": ["2", "adapter_set"]}
    return [{"name": name, "graph": numbered(graph), "dropdown": dropdowns.get(name)} for name, graph in made.items()]


def loader(before, clip):
    """Load ED-LoRA behind a node whose CLIP has this number."""
    settings = {"strength_model": 1.0, "strength_clip": 1.0, "pooled": "concept"}
    return node(
        "PersonalizationEDLoRALoader",
        model=[before, 0],
        clip=[before, clip],
        edlora_file="words.safetensors",
        **settings,
    )


def reference(word):
    """A word in a field, in a sentence on the node and in the error: its picture is too small."""
    return {
        "i": node("EmptyImage", width=4, height=4, batch_size=1, color=0),
        "a": node("PersonalizationReference", image=["i", 0], word=word, prompt=word, strength=1.0),
        "p": node("PersonalizationReferencePreview", references=["a", 0]),
        "s": node("PreviewImage", images=["p", 0]),
    }


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def numbered(graph):
    """The front end wants numbers as ids."""
    numbers = {name: str(number) for number, name in enumerate(graph, 1)}

    def link(value):
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[name]: {**one, "inputs": {key: link(value) for key, value in one["inputs"].items()}}
        for name, one in graph.items()
    }


def watched(server, environment, folder, version):
    """What hostile.mjs saw."""
    screenshots = ROOT / "output" / f"hostile_{version}"
    screenshots.parent.mkdir(exist_ok=True)
    (folder / "stages.json").write_text(json.dumps(stages()), encoding="utf-8")
    script = Path(__file__).with_name("hostile.mjs")
    command = ["node", script, server.url, folder / "stages.json", screenshots]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
