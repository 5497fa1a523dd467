"""What leaves the pack as text is plain text: on the page, in exceptions, in the log."""

import logging
import sys
from types import SimpleNamespace
from uuid import uuid4

import pytest
from comfy_execution.utils import CurrentNodeContext

from pack.nodes.host import messages
from pack.nodes.host.messages import input_error, log_info, log_warning, plain, warn_user

# What a shared workflow or a file of the web may hold.
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</span><script>alert(1)</script>",
    "&lt;b&gt;",
    "[[reload the page|https://example.com]]",
    "[[[x|https://example.com]]]",
    "k\n[ERROR] forged line",
    "k\x1b[2J",
    "right\u202eleft",
    "\ud800",
    "\x00",
]


@pytest.fixture
def page(monkeypatch):
    """What the server sends to the node that runs."""
    sent = []
    server = SimpleNamespace(send_progress_text=lambda text, node: sent.append(text))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    with CurrentNodeContext(str(uuid4()), "1"):
        yield sent


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("say", [warn_user, input_error])
def test_the_page_gets_no_markup(page, say, text):
    say(f'the word "{text}" is odd')
    (sent,) = page
    assert not {"<", ">"} & set(sent) and "[[" not in sent and sent.isprintable()
    # no entity but those that we wrote
    assert "&" not in sent.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_exceptions_and_log_are_one_printable_line(text, caplog):
    caplog.set_level(logging.INFO)
    error = input_error(f"{text} is odd")
    assert isinstance(error, ValueError) and str(error).isprintable()
    for say in (warn_user, log_warning, log_info):
        say(f"{text} is odd; 100 %s")
    assert [record.getMessage() for record in caplog.records] == [plain(f"{text} is odd; 100 %s")] * 3
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_words_of_an_ed_lora_are_still_seen(page):
    """As entities, which the page shows as the characters that they stand for."""
    warn_user("write <lion_1> <lion_2>")
    assert page == ["write &lt;lion_1&gt; &lt;lion_2&gt;"]


@pytest.mark.parametrize(
    "name",
    ["k" * 1_000_000, "k " * 500_000, '"' * 1_000_000, "\x1b" * 200_000],
    ids=["long", "words", "quotes", "codes"],
)
def test_long_names_are_cut(page, name):
    for sentence in (f'"{name}" is odd; choose another', f"{name} is odd; choose another"):
        error = input_error(sentence)
        assert len(str(error)) < 500 and str(error).endswith("choose another") and len(page[-1]) < 3000


def test_a_quoted_name_keeps_its_ends():
    name = "begin" + "x" * 200 + "end"
    assert plain(f'the file "{name}" is odd') == f'the file "begin{"x" * 32} ... {"x" * 34}end" is odd'


def test_ordinary_sentences_stay_as_they_are():
    for text in ("a cat", 'the word "a big red hat" is odd; enter another', "\u00fcber \u732b 1024 \u00d7 768"):
        assert plain(text) == text


def test_spaces_of_all_widths_stay_as_they_are():
    """Names of files hold them, as no-break and ideographic spaces; marks that nobody sees go by their codes."""
    assert plain("my\u00a0cat \u732b\u3000\u72ac") == "my\u00a0cat \u732b\u3000\u72ac"
    assert plain("a\u200bb\u2028c") == "a\\u200bb\\u2028c"


def test_a_node_shows_all_that_it_has_said_in_a_run(page):
    """The page keeps only the last text that a node sends."""
    for sentence in ("first", "second", "first", "third"):
        warn_user(sentence)
    with pytest.raises(ValueError, match="stop"):
        raise input_error("stop")
    both = "first\nsecond"
    assert page == ["first", both, both, f"{both}\nthird", f"{both}\nthird\nstop"]
    with CurrentNodeContext("the next run", "1"):
        warn_user("first")
    assert page[-1] == "first"


def test_each_node_shows_its_own(page):
    run = str(uuid4())
    for node, sentence in (("1", "a"), ("2", "b"), ("1", "c")):
        with CurrentNodeContext(run, node):
            warn_user(sentence)
    assert page == ["a", "b", "a\nc"]


def test_what_is_remembered_has_a_limit(page):
    for number in range(100):
        warn_user(f"sentence {number}")
    assert page[-1].split("\n") == [f"sentence {number}" for number in range(100 - messages.SHOWN, 100)]
    for number in range(100):
        with CurrentNodeContext("many", str(number)):
            warn_user("short")
    assert len(messages._SAID) == messages.NODES
