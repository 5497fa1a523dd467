"""Which tests run where: the rooms of tests/, what needs no ComfyUI, and what every version of it must pass."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# Maths, setting up, and the shape of the code.
WITHOUT_HOST = ("kernels", "setup", "test_architecture.py", "test_demo.py")
# The browser's tests start the other versions themselves; training uses torch, whichever ComfyUI lies beside it.
NEWEST_ONLY = ("browser", "pocket")
# What the pocket model's room has to say about the host: its files, loaded and drawn with.
POCKET_IN_HOST = ("pocket/test_pocket_model.py", "pocket/test_pocket_node.py", "pocket/test_companions.py")


def rooms():
    """What lies directly in tests/ and holds tests: folders, and files beside them."""
    return sorted({path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")})


def room_of(test):
    """The room of a test that pytest calls `tests/<room>/...::...`."""
    return test.split("::")[0].split("/")[1]


def on_every_host():
    """Paths of the tests that touch ComfyUI."""
    whole = [room for room in rooms() if room not in WITHOUT_HOST + NEWEST_ONLY]
    return [f"tests/{name}" for name in (*whole, *POCKET_IN_HOST)]
