"""A short run of the fuzzer with a fixed seed, and proof that it sees what it looks for. `long.py` runs it longer."""

import mmap
import pickle
import random
import time

import pytest
import torch

from fuzz.containers import _planted
from fuzz.files import Files, places
from fuzz.verdict import faults_of, listening
from fuzz.widgets import TRIED, Widgets
from pack.nodes.files.safe_files import read_tensors
from pack.nodes.host.messages import input_error

SEED, FILES, WIDGETS = 1, 105, 50


@pytest.fixture(scope="module")
def base():
    with places() as base:
        yield base


@pytest.fixture(scope="module")
def widgets(base):
    with torch.inference_mode():
        return Widgets(base)


def all_faults(subject, count):
    found = [(number, *subject.faults(SEED, number)) for number in range(count)]
    return [(number, kind, faults) for number, kind, faults in found if faults]


@pytest.mark.filterwarnings("ignore")
def test_every_damaged_file_is_read_or_refused_in_a_sentence(base):
    assert all_faults(Files(base), FILES) == []


@pytest.mark.filterwarnings("ignore")
def test_every_hostile_input_is_taken_or_refused_in_a_sentence(widgets):
    assert all_faults(widgets, WIDGETS) == []


@pytest.mark.filterwarnings("ignore")
def test_a_value_that_no_dropdown_lists_is_refused(widgets):
    """A wire may bring any; nothing takes it for another choice without a word."""
    widgets.fill()
    combos = [(node, one) for node in TRIED for one in node.define_schema().inputs if one.get_io_type() == "COMBO"]
    for node, one in combos:
        for value in ("nonsense", "../../x", "\x00"):
            inputs = widgets.inputs(node, random.Random(0)) | {one.id: value}
            with pytest.raises(ValueError, match=one.id if "file" not in one.id else "file"):
                node.execute(**inputs)


# what it looks for is seen


def seen(work, marker=None):
    with listening() as said:
        return faults_of(work, said, marker)[1]


def sentence():
    raise input_error("the file is odd; choose another")


def hides():
    raise ValueError("a sentence that nobody was shown")


def test_a_sentence_is_no_fault_and_all_else_is():
    assert seen(sentence) == []
    assert "ValueError" in seen(hides)[0] and "KeyError" in seen(lambda: {}["a"])[0]
    assert "cannot be shown" in seen(lambda: listening_to("a\nb"))[0]


def listening_to(text):
    from pack.nodes.host import messages

    messages.plain, plain = str, messages.plain
    try:
        messages.warn_user(text)
    finally:
        messages.plain = plain


def test_time_and_memory_are_seen():
    def slow():
        end = time.process_time() + 2.2
        while time.process_time() < end:
            pass

    assert any(fault.startswith("took 2.") and fault.endswith(" s") for fault in seen(slow))

    def large():
        # pages of its own: a long process may have enough that is free
        with mmap.mmap(-1, 1200 << 20) as pages:
            for start in range(0, len(pages), mmap.PAGESIZE):
                pages[start] = 1

    # where processors are slow, so many pages take more than their seconds, too
    assert any(fault.endswith(" MB") for fault in seen(large))


def test_what_waits_for_ever_is_seen(monkeypatch):
    monkeypatch.setattr("fuzz.verdict.WAITING", 1)
    assert "TimeoutError" in seen(lambda: time.sleep(20))[0]


@pytest.mark.filterwarnings("ignore")
def test_planted_code_would_run_and_be_seen(tmp_path):
    """In an unsafe loader it does, wherever it is planted; in ours it never does."""
    marker, ran = tmp_path / "planted", 0
    pickled = pickle.dumps({"a": [1, 2], "b": "text"}, 2)
    for number in range(40):
        planted = _planted(random.Random(number), pickled, marker)
        ran += "ran what the file asked for" in seen(lambda planted=planted: pickle.loads(planted), marker)
        (tmp_path / "x.pt").write_bytes(planted)
        assert seen(lambda: read_tensors(tmp_path / "x.pt"), marker) == []
    assert ran > 10


def test_the_same_numbers_give_the_same_file(base):
    files, made = Files(base), []
    for _ in range(2):
        torch.manual_seed(0)
        files.faults(SEED, 0)
        made.append([path.read_bytes() for path in sorted((files.base / "npnet").iterdir())])
    assert made[0] == made[1]
