"""What gpu.py has found so far, as JSON and as tables; written after each finding, so that it may be stopped."""

import json
import threading
import time

# Columns in the order in which tables have them; a table has those that its rows have.
COLUMNS = (
    "case", "way", "ms", "x plain", "peak MiB", "launches", "copies to the device", "GB/s", "dtype",
    "error of the prompt", "error of the negative", "limit", "says",
)  # fmt: skip


class Report:
    """The findings, and how much time is left for more."""

    def __init__(self, place, end, facts):
        """place: of the files, without an ending; end: on the clock of time.monotonic."""
        self.facts, self.rows = facts, []
        self._place, self._end = place, end
        self._lock = threading.Lock()

    @property
    def left(self):
        """Seconds."""
        return self._end - time.monotonic()

    def add(self, section, **row):
        """One more row of a section's table."""
        with self._lock:
            self.rows.append({"section": section, **row})
        self.write()

    def write(self):
        """Both files, each whole."""
        with self._lock:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            found = {"facts": self.facts, "rows": self.rows}
            for ending, text in ((".json", json.dumps(found, indent=1)), (".md", self._tables())):
                part = self._place.with_suffix(ending + ".part")
                part.write_text(text + "\n", encoding="utf-8")
                part.replace(self._place.with_suffix(ending))

    def _tables(self):
        lines = [f"{name}: {value}  " for name, value in self.facts.items()]
        for section in dict.fromkeys(row["section"] for row in self.rows):
            rows = [row for row in self.rows if row["section"] == section]
            columns = [name for name in COLUMNS if any(name in row for row in rows)]
            lines += ["", f"## {section}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
            lines += [f"| {' | '.join(_shown(row.get(name)) for name in columns)} |" for row in rows]
        return "\n".join(lines)


def _shown(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
