"""Words in prompts by their tokens."""

import pytest
import torch

from pack.nodes.host.token_runs import END, START, row_of_token, starts_of, tokens_between, tokens_in


class Words:
    """A CLIP of one encoder that reads numbers, three to a part."""

    def __init__(self, start=START):
        self.start = start

    def tokenize(self, text):
        numbers = [int(word) for word in text.split()]
        parts = [numbers[at : at + 3] for at in range(0, len(numbers), 3)] or [[]]
        return {"l": [[(token, 1.0) for token in (self.start, *part, END, END)] for part in parts]}


def test_tokens_by_part():
    assert tokens_in(Words(), "1 2 3 4") == [[1, 2, 3], [4]]
    assert tokens_in(Words(), "") == [[]]


def test_another_vocabulary_is_refused():
    with pytest.raises(ValueError, match="does not read text as Stable Diffusion's does"):
        tokens_in(Words(start=1), "1 2")


def test_the_first_end_ends_a_part():
    part = [(START, 1.0), (5, 1.0), (torch.ones(2), 1.0), (7, 1.0), (END, 1.0), (7, 1.0)]
    assert tokens_between(part)[0] == 5 and len(tokens_between(part)) == 3
    assert tokens_between(part, 7)[:1] == [5] and len(tokens_between(part, 7)) == 2


@pytest.mark.parametrize(
    ("ids", "tokens", "starts"),
    [
        ([1, 1], [1, 1, 1, 2, 1, 1], [0, 1, 4]),
        ([2, 3], [1, 2], []),
        ([], [1, 2], []),
        ([torch.ones(2), 3], [torch.zeros(2), 3, torch.ones(2), 3], [2]),
    ],
)
def test_where_a_run_stands(ids, tokens, starts):
    assert list(starts_of(ids, tokens)) == starts


def test_rows_count_the_start_of_each_part():
    assert [row_of_token(*place) for place in ((0, 0), (0, 74), (1, 0))] == [1, 75, 78]
