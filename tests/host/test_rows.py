"""Roles come from the guider's names, never from positions alone."""

from uuid import uuid4

from pack.nodes.host.rows import COND, LISTS, UNCOND, Listed, Reading, chunks_of, coupled_chunks, entry_of, named_lists

P, P2, N = uuid4(), uuid4(), uuid4()
CONDS = {"positive": [{"uuid": P}, {"uuid": P2}], "negative": [{"uuid": N}]}


def roles(options, batch, conds=CONDS):
    return [(c.start, c.stop, c.role) for c in chunks_of(options, batch, conds)]


def test_the_negative_comes_first():
    assert roles({"cond_or_uncond": [1, 0], "uuids": [N, P]}, 4) == [(0, 2, UNCOND), (2, 4, COND)]


def test_several_positives():
    options = {"cond_or_uncond": [1, 0, 0], "uuids": [N, P2, P]}
    assert roles(options, 3) == [(0, 1, UNCOND), (1, 2, COND), (2, 3, COND)]


def test_a_negative_that_a_node_runs_alone_is_still_the_negative():
    # PAG and SAG put one conditioning into calc_cond_batch: its index is 0 whatever it is
    assert roles({"cond_or_uncond": [0], "uuids": [N]}, 2) == [(0, 2, UNCOND)]


def test_an_entry_copied_to_the_other_side_takes_its_index():
    conds = {"positive": [{"uuid": P}], "negative": [{"uuid": N}, {"uuid": P}]}
    options = {"cond_or_uncond": [1, 1, 0], "uuids": [P, N, P]}
    assert roles(options, 3, conds) == [(0, 1, UNCOND), (1, 2, UNCOND), (2, 3, COND)]


def test_a_copied_entry_that_a_node_runs_alone_takes_the_name_of_its_list():
    conds = {"positive": [{"uuid": P}], "negative": [{"uuid": N}, {"uuid": P}]}
    lists = named_lists([conds["negative"]], conds)
    assert lists == (Listed("negative"),)
    assert named_lists([list(conds["negative"]), None], conds) == (Listed(None), Listed(None))
    options = {"cond_or_uncond": [0, 0], "uuids": [P, N], LISTS: lists}
    assert roles(options, 2, conds) == [(0, 1, UNCOND), (1, 2, UNCOND)]


def test_rows_know_what_their_list_reads_of_references():
    conds = {"positive": [{"uuid": P}], "negative": [{"uuid": N}]}
    without = Listed("positive without references", Reading(references=False))
    options = {"cond_or_uncond": [1, 0], "uuids": [P, P], LISTS: (Listed("positive", Reading(shift=-1)), without)}
    chunks = chunks_of(options, 2, conds)
    assert [chunk.reading for chunk in chunks] == [Reading(references=False), Reading(shift=-1)]
    assert [chunk.role for chunk in chunks] == [COND, COND]


def test_guiders_of_other_nodes_have_other_names():
    conds = {"positive": [{"uuid": P}], "middle": [{"uuid": P2}], "negative": [{"uuid": N}]}
    # the host's DualCFGGuider counts from the negative
    options = {"cond_or_uncond": [2, 1, 0], "uuids": [P, P2, N]}
    assert [role for *_, role in roles(options, 3, conds)] == [COND, COND, UNCOND]
    conds = {"positive": [{"uuid": P}], "empty_negative_prompt": [{"uuid": P2}], "negative": [{"uuid": N}]}
    options = {"cond_or_uncond": [2, 1, 0], "uuids": [P2, N, P]}
    assert [role for *_, role in roles(options, 3, conds)] == [UNCOND, UNCOND, COND]


def names(options, batch, conds=CONDS):
    return [chunk.name for chunk in chunks_of(options, batch, conds)]


def test_rows_know_the_name_of_their_list():
    conds = {"positive": [{"uuid": P}], "empty_negative_prompt": [{"uuid": P2}], "negative": [{"uuid": N}]}
    assert names({"cond_or_uncond": [2, 1, 0], "uuids": [P2, N, P]}, 3, conds) == [
        "empty_negative_prompt",
        "negative",
        "positive",
    ]
    # one entry in two lists: that of the side that the host gives it
    both = {"positive": [{"uuid": P}], "negative": [{"uuid": N}, {"uuid": P}]}
    assert names({"cond_or_uncond": [1, 0], "uuids": [P, P]}, 2, both) == ["negative", "positive"]
    # some node's own list is none of the guider's; where there is no guider there are the usual two
    assert names({"cond_or_uncond": [0], "uuids": [uuid4()]}, 2) == [None]
    assert names({"cond_or_uncond": [1, 0], "uuids": [N, P]}, 2, {}) == ["negative", "positive"]
    assert names({"cond_or_uncond": [1, 0]}, 2) == ["negative", "positive"]


def test_without_a_guider_the_index_decides():
    assert roles({"cond_or_uncond": [1, 0], "uuids": [N, P]}, 2, {}) == [(0, 1, UNCOND), (1, 2, COND)]
    assert roles({"cond_or_uncond": [1, 0]}, 2, {}) == [(0, 1, UNCOND), (1, 2, COND)]


def test_a_list_that_a_node_brings_itself_is_no_prompt():
    """The host's old Perp-Neg runs an empty prompt of its own: index 0, and a uuid that no guider holds."""
    assert roles({"cond_or_uncond": [0], "uuids": [uuid4()]}, 2) == [(0, 2, UNCOND)]
    # nobody gave a uuid: the index decides
    assert roles({"cond_or_uncond": [0], "uuids": [None]}, 2) == [(0, 2, COND)]
    assert roles({"cond_or_uncond": [0, 1]}, 2) == [(0, 1, COND), (1, 2, UNCOND)]


def test_rows_that_nobody_explains_are_one_chunk():
    assert roles({}, 3, {}) == [(0, 3, COND)]
    assert roles({"cond_or_uncond": [1, 0], "uuids": [N, P]}, 3) == [(0, 3, COND)]
    assert roles({"cond_or_uncond": [1, 0], "uuids": [N]}, 4) == [(0, 4, COND)]


def test_an_area_comes_with_its_chunk():
    conds = {"positive": [{"uuid": P, "area": (4, 8, 0, 8)}], "negative": [{"uuid": N}]}
    chunks = chunks_of({"cond_or_uncond": [1, 0], "uuids": [N, P]}, 2, conds)
    assert [c.area for c in chunks] == [None, (4, 8, 0, 8)]


def test_rows_that_a_couple_node_put_in():
    options = {"cond_or_uncond_couple": [1, 0, 0]}
    assert [(c.start, c.stop, c.role) for c in coupled_chunks(options, 6)] == [
        (0, 2, UNCOND),
        (2, 4, COND),
        (4, 6, COND),
    ]
    # nobody says whose they are, or it does not add up
    assert coupled_chunks({}, 6) == () == coupled_chunks(options, 4)


def test_the_text_of_a_chunk():
    text, other = object(), object()
    positive = {"uuid": P, "model_conds": {"c_crossattn": text}}
    negative = {"uuid": N, "model_conds": {"c_crossattn": other}}
    # to match an area the host puts the positive entry on the negative side, with what the model gets of the negative
    copied = {**positive, "model_conds": {"c_crossattn": other}}
    conds = {"positive": [positive], "negative": [negative, copied]}
    cond, uncond = chunks_of({"cond_or_uncond": [0, 1], "uuids": [P, P]}, 2, conds)
    assert entry_of(cond, conds) is positive and entry_of(uncond, conds) is negative
    assert entry_of(chunks_of({"cond_or_uncond": [0], "uuids": [uuid4()]}, 1, conds)[0], conds) is None
    assert entry_of(chunks_of({}, 1, conds)[0], conds) is None


def test_an_entry_on_both_sides_has_an_area_on_each():
    """The host copies an entry to the other side and gives the copy that side's area."""
    here, there = (8, 8, 0, 0), (4, 4, 2, 2)
    conds = {"positive": [{"uuid": P, "area": here}], "negative": [{"uuid": N}, {"uuid": P, "area": there}]}
    for order, areas in (([0, 1], [here, there]), ([1, 0], [there, here])):
        chunks = chunks_of({"cond_or_uncond": order, "uuids": [P, P]}, 2, conds)
        assert [chunk.area for chunk in chunks] == areas
