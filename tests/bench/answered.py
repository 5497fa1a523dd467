"""What an effect benchmark was answered before: a file beside its table, so that several runs add up.

A line each in JSON: the setting; then for each kind of question what its answers mean, and the answers.
"""

import hashlib
import json

# what changes pictures or their verdicts, beside the questions and arms themselves
SETTINGS = ("steps", "cfg", "count")


class Answered:
    """Answers {arm: {what: whether, or how much}} by question, of one kind of question, under one setting.

    path: the file, or None to keep nothing; one of another setting is begun anew, a kind with other arms asked again.
    """

    def __init__(self, path, kind, setting):
        self.path, self.kind, self.setting = path, kind, setting
        self._head, self._questions = None, {}
        for line in self._lines():
            if line["kind"] != kind:
                continue
            if "arms" in line:
                self._head, self._questions = line, {}
            else:
                self._questions[line["question"]] = line["answers"]

    def of(self, question, arms):
        """What these arms answered to a question, None if they were not asked."""
        rows = self._questions.get(_key(question))
        if rows is None or self._head["arms"] != list(arms):
            return None
        return {arm: dict(zip(self._head["whats"], row, strict=True)) for arm, row in zip(arms, rows, strict=True)}

    def keep(self, question, found):
        """Writes down what arms answered to a question, {arm: {what: whether, or how much}}."""
        whats = list(next(iter(found.values())))
        head = {"kind": self.kind, "arms": list(found), "whats": whats}
        if head != self._head:
            self._head, self._questions = head, {}
            self._write(head)
        rows = [[one[what] for what in whats] for one in found.values()]
        self._questions[_key(question)] = rows
        self._write({"kind": self.kind, "question": _key(question), "answers": rows})

    def _lines(self):
        if self.path is None or not self.path.exists():
            return []
        setting, *lines = map(json.loads, self.path.read_text(encoding="utf-8").splitlines())
        if setting == self.setting:
            return lines
        print(f"{self.path.name} was answered under another setting ({setting}, now {self.setting}): begun anew")
        self.path.unlink()
        return []

    def _write(self, line):
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begins = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as file:
            for one in (self.setting, line) if begins else (line,):
                file.write(json.dumps(one) + "\n")


def setting_of(options, weights):
    """What answers depend on: the options that change pictures, and a digest of the files of weights."""
    digest = hashlib.sha256()
    for file in sorted(weights):
        digest.update(file.read_bytes())
    return {name: getattr(options, name) for name in SETTINGS} | {"weights": digest.hexdigest()[:16]}


def _key(question):
    return f"{question.seed}: {', '.join(question.things)} on {question.colour}"
