"""Which tests run where: the rooms of tests/, what needs no ComfyUI, and what every version of it must pass."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# Maths, setting up, and the shape of the code: ComfyUI is not asked.
WITHOUT_HOST = ("kernels", "setup", "test_architecture.py", "test_demo.py")
# Of each room, the files with these endings: numbers that must be reached, and what users see of a technique.
OF_EACH_ROOM = ("_golden.py", "_node.py")
# Seams to ComfyUI, runs on its server, and files of golden cases that are named otherwise.
ON_OLDER_HOSTS = (
    "host",
    "server",
    "weight_deltas",
    "inversion",
    "test_nodes.py",
    "test_placed.py",
    "composition/test_state.py",
    "composition/test_concepts.py",
    "editing/test_visctrl.py",
    "image_prompts/test_instantid.py",
    "image_prompts/test_storymaker.py",
    "panels/test_panel_grid.py",
    "pocket/test_companions.py",
    "pocket/test_pocket_model.py",
    "subject_masks/test_sam_files.py",
    "training/test_refine_word.py",
    "training/test_train_run.py",
)


def rooms():
    """What lies directly in tests/ and holds tests: folders, and files beside them."""
    return sorted({path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")})


def room_of(test):
    """The room of a test that pytest calls `tests/<room>/...::...`."""
    return test.split("::")[0].split("/")[1]


def on_older_hosts():
    """Paths of the tests that every version of ComfyUI must pass."""
    named = {path for ending in OF_EACH_ROOM for path in TESTS.rglob(f"test_*{ending}")}
    files = sorted(path.relative_to(TESTS).as_posix() for path in named)
    return [f"tests/{name}" for name in (*ON_OLDER_HOSTS, *(name for name in files if name not in ON_OLDER_HOSTS))]
