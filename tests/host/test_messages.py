"""What leaves the pack as text is plain text: on the page, in exceptions, in the log."""

import logging
import sys
from types import SimpleNamespace

import pytest

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
    monkeypatch.setattr(messages, "get_executing_context", lambda: SimpleNamespace(node_id="1"))
    return sent


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
