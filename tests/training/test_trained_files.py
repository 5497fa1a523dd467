"""The files of a training: what each is called."""

import pytest
import torch

from pack.nodes.training.learned import Learned
from pack.nodes.training.trained_files import files_of

pytestmark = pytest.mark.usefixtures("folders")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("<a>", "<b>"), ["a", "b"]),
        (("<a>", "<a!>", "<A?>"), ["a", "a_2", "A_3"]),
        (("<!>", "<?>"), ["1", "2"]),
        (("<2>", "<!>"), ["2", "2_2"]),
    ],
)
def test_each_word_has_a_file_of_its_own(words, parts):
    learned = Learned({word: {"l": torch.full((1, 4), float(number))} for number, word in enumerate(words)})
    whole, *each = files_of(learned, "words", "it").items()
    assert whole[0].name == "it.safetensors" and whole[1]["clip_l"].shape == (len(words), 4)
    assert [path.stem for path, _ in each] == [f"it_{part}" for part in parts]
    assert [float(tensors["clip_l"][0, 0]) for _, tensors in each] == list(range(len(words)))
