"""The demo's graph and its sheet."""

import demo
from contact_sheet import CELL, sheet
from PIL import Image


def test_every_picture_of_a_row_is_a_node_that_saves_it():
    graph = demo.graph()
    shown = [number for _, cells in graph.rows for _, number in cells]
    saving = [number for number, node in graph.nodes.items() if node["class_type"] == "SaveImage"]
    assert sorted(shown) == sorted(saving) and len(set(shown)) == len(shown)
    assert all(title and all(caption for caption, _ in cells) for title, cells in graph.rows)


def test_links_lead_to_earlier_nodes():
    for number, node in demo.graph().nodes.items():
        for value in node["inputs"].values():
            if isinstance(value, list):
                assert int(value[0]) < int(number)


def test_the_sheet_shows_every_picture_where_it_belongs():
    colours = ["red", "lime", "blue", "black"]
    one, two, three, four = (Image.new("RGB", (8, 8), colour) for colour in colours)
    page = sheet([("first", [("a", one), ("b", two)]), ("second", [("c", three), ("d", four)])])
    assert page.width > 2 * CELL and page.height > 2 * CELL
    quarters = [(page.width // 4, page.height // 4), (3 * page.width // 4, page.height // 4)]
    quarters += [(page.width // 4, 3 * page.height // 4), (3 * page.width // 4, 3 * page.height // 4)]
    found = [page.getpixel(place) for place in quarters]
    assert found == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)]
