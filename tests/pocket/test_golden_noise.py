"""An NPNet for the pocket model, by the pack's own nodes."""

import itertools
from types import SimpleNamespace

import folder_paths
import golden_noise
import pytest
import torch
from judge import load as load_judge
from made_up import random_networks, write
from pictures import read
from questions import Question
from safetensors.torch import load_file, save_file
from things import WORDS

from pack.nodes.golden_noise.npnet_file import net_from


@pytest.fixture
def said(tmp_path, monkeypatch):
    folder = write(random_networks(), tmp_path)
    monkeypatch.setattr(folder_paths, "output_directory", folder_paths.get_output_directory())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", ([], set()))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    # a judge that finds each picture better than the last
    numbers = itertools.count()
    monkeypatch.setattr(golden_noise, "sureness", lambda *_: next(numbers))
    few = ["--prompts", "3", "--pairs", "1", "--steps", "2", "--batch", "2", "--drawn", "1"]
    where = ["--folder", str(folder), "--cache", str(tmp_path / "pairs"), "--out", str(tmp_path / "made")]
    return golden_noise.train(golden_noise.parser().parse_args(few + where)), tmp_path


def test_the_nodes_learn_from_what_they_collected(said):
    report, folder = said
    assert "2 steps" in report
    kept = load_file(folder / "made" / "npnet" / "npnet_pocket.safetensors")
    net = net_from(kept, "npnet_pocket")
    assert (net.sizes.side, net.sizes.prompt) == (16, 768)
    assert sum(t.numel() for t in kept.values()) * 2 < 3e6
    assert all(t.isfinite().all() for t in net.weights.values())
    assert len(list((folder / "pairs" / "npnet_pairs").glob("pair_*"))) == 3
    assert torch.tensor([net.weights[name].abs().sum() for name in ("alpha", "beta")]).any()


def test_what_the_judge_likes_less_is_removed(tmp_path):
    question, paths = Question(("dog",), "blue", 0), [tmp_path / f"pair_{i}.safetensors" for i in range(3)]
    for path, (noise, golden) in zip(paths, ((0.2, 0.7), (0.7, 0.2), (0.5, 0.5)), strict=True):
        save_file({"noise": torch.tensor([noise]), "golden": torch.tensor([golden])}, path)

    class Eye:
        def look(self, pictures):
            cells = torch.full((1, 1 + len(WORDS), 2, 2), 0.01)
            cells[0, 1 + WORDS.index("dog"), 0, 1] = pictures.flatten()[0]
            return SimpleNamespace(cells=cells.log())

    golden_noise.keep_better(question, paths, lambda noise: noise.expand(1, 2, 2, 3), Eye())
    assert [path.exists() for path in paths] == [True, False, False]


def test_a_judge_is_as_sure_as_of_the_thing_that_it_sees_least():
    pictures, shown = read()
    two = next(i for i, one in enumerate(shown) if len(one["things"]) == 2)
    words, picture, eye = tuple(shown[two]["things"]), pictures[two].movedim(0, -1)[None], load_judge()
    other = next(word for word in WORDS if word not in words)
    both, alone, wrong = (
        golden_noise.sureness(Question(things, "blue", 0), picture, eye)
        for things in (words, words[:1], (words[0], other))
    )
    assert 0.5 < both <= alone and wrong < 0.1
