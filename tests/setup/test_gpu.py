"""gpu.py with its kit, where Python has torch and numpy and nothing else: every line of it runs, at tiny sizes."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench import make_gpu_kit

HOST, TESTS = os.environ.get("COMFYUI_PATH"), Path(__file__).resolve().parents[1]
# The ways that are measured in each section of the rehearsal.
SECTIONS = {
    "sd15: MRSA": ("plain", "first", "cached"),
    "sd15: the bank's copies": (
        "into main memory",
        "to the device",
        "to the device, begun",
        "to the device, one by one",
    ),
    "sd15: MIP-Adapter": ("plain", "MIP-Adapter"),
    "sd15: Concept Conductor": ("plain", "conducted"),
    "sd15: Concept Conductor, guided": ("plain", "conducted and guided"),
    "sd15: reference techniques": ("plain", "dreamtuner", "reference_only"),
    "Golden Noise": ("text", "SVD", "spectrum", "residual (Swin)", "whole"),
}


def needed(*names):
    """The distributions of these names and all that they ask for, as far as they are installed."""
    found = {}
    while names:
        name, *names = names
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found[name] = distribution
            asked = [one for one in distribution.requires or () if "extra ==" not in one]
            names += [re.match(r"[\w.-]+", one)[0] for one in asked]
    return found.values()


def alone(folder, *names):
    """A folder that holds these packages, what they ask for, and no more."""
    folder.mkdir()
    for distribution in needed(*names):
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            link, target = folder / top, Path(distribution.locate_file(top))
            if target.exists() and not link.exists():
                link.symlink_to(target)
    return folder


needs_host = pytest.mark.skipif(HOST is None or os.name == "nt", reason="needs ComfyUI, and a system with links")


@needs_host
def test_the_kit_holds_what_is_imported(tmp_path):
    assert make_gpu_kit.made(Path(HOST).resolve(), sys.executable, tmp_path / "kit") < make_gpu_kit.LIMIT


@needs_host
@pytest.mark.slow
def test_all_of_it_runs_with_torch_and_numpy_alone(tmp_path):
    kit, out = tmp_path / "kit", tmp_path / "out" / "gpu"
    make_gpu_kit.made(Path(HOST).resolve(), sys.executable, kit)
    packages = alone(tmp_path / "packages", "torch", "numpy")
    assert not (packages / "einops").exists() and not (packages / "safetensors").exists()
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    environment.pop("COMFYUI_PATH")
    command = [sys.executable, "-S", TESTS / "bench" / "gpu.py", "--kit", kit, "--rehearse"]
    command += ["--turns", "1", "--seconds", "1800", "--out", out]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["facts"]["ended"] == "all is done"
    for package in ("transformers", "safetensors", "PIL", "pytest"):
        assert package in found["facts"]["stand-ins"]
    rows = {}
    for row in found["rows"]:
        assert not row.get("says") or "not rehearsed" in row["says"], row
        rows.setdefault(row["section"], []).append(row)
    for section, ways in SECTIONS.items():
        assert {row["way"] for row in rows[section]} == set(ways)
        assert all(row["ms"] > 0 for row in rows[section])
    operators = {row["way"]: row.get("launches") for row in rows["sd15: MRSA"]}
    assert operators["first"] > 1.3 * operators["cached"] > 0
    assert {row["case"].split(" ")[0] for row in rows["recorded cases"]} == {"MRSA", "MIP-Adapter", "Concept"}
    table = out.with_suffix(".md").read_text()
    assert table == done.stdout.removesuffix("\n") and "| cached |" in table


def test_it_ends_by_itself_with_what_there_is(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "from bench import gpu, gpu_report; "
        "report = gpu_report.Report(Path(sys.argv[2]), time.monotonic() + 0.2, {}); report.add('a section', ms=1.5); "
        "gpu.ended_in_time(report); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code, TESTS, tmp_path / "gpu"], timeout=50)
    assert done.returncode == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["rows"] == [{"section": "a section", "ms": 1.5}] and "no time" in found["facts"]["ended"]
    assert "## a section\n\n| ms |\n| --- |\n| 1.5 |" in (tmp_path / "gpu.md").read_text()
