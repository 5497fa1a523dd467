"""The lines that break_lines.py breaks stand where it looks for them, and so do the tests that must notice."""

from pathlib import Path

from broken_lines import LINES

ROOT = Path(__file__).resolve().parents[1]


def test_each_line_stands_there_once():
    counts = {(path, old): (ROOT / path).read_text(encoding="utf-8").count(old) for path, old, _, _ in LINES}
    assert {line: count for line, count in counts.items() if count != 1} == {}


def test_each_file_of_tests_is_there():
    named = {part for *_, tests in LINES for part in tests.partition(" -k ")[0].split()}
    assert [path for path in named if not (ROOT / path).exists()] == []
