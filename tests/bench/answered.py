"""What an effect benchmark was answered before: a file beside its table, so that several runs add up."""

import hashlib
import json

# what changes pictures or their verdicts, beside the questions and arms themselves
SETTINGS = ("steps", "cfg", "count")


class Answered:
    """Answers {arm: {what: whether, or how much}} by question, of one kind of question, under one setting.

    path: the file, or None to keep nothing; a file made under another setting, by other arms or weights is begun anew.
    """

    def __init__(self, path, kind, setting):
        self.path, self.kind, self.setting = path, kind, setting
        self._kinds = _kinds_in(path, setting)
        found = self._kinds.get(kind, {})
        self._arms, self._whats = found.get("arms", []), found.get("whats", [])
        self._questions = found.get("questions", {})

    def of(self, question, arms):
        """What these arms answered to a question, None if they were not asked."""
        rows = self._questions.get(_key(question)) if self._arms == list(arms) else None
        if rows is None:
            return None
        return {arm: dict(zip(self._whats, row, strict=True)) for arm, row in zip(self._arms, rows, strict=True)}

    def keep(self, question, found):
        """Writes down what arms answered to a question, {arm: {what: whether, or how much}}."""
        if self.path is None:
            return
        whats = list(next(iter(found.values())))
        if (self._arms, self._whats) != (list(found), whats):
            self._arms, self._whats, self._questions = list(found), whats, {}
        self._questions[_key(question)] = [[one[what] for what in whats] for one in found.values()]
        self._kinds[self.kind] = {"arms": self._arms, "whats": whats, "questions": self._questions}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(_compact({"setting": self.setting, "kinds": self._kinds}), encoding="utf-8")
        beside.replace(self.path)


def setting_of(options, weights):
    """What answers depend on: the options that change pictures, and a digest of the files of weights."""
    digest = hashlib.sha256()
    for file in sorted(weights):
        digest.update(file.read_bytes())
    return {name: getattr(options, name) for name in SETTINGS} | {"weights": digest.hexdigest()[:16]}


def _kinds_in(path, setting):
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["setting"] == setting:
        return found["kinds"]
    print(f"{path.name} was answered under another setting ({found['setting']}, now {setting}): begun anew")
    return {}


def _key(question):
    return f"{question.seed}: {', '.join(question.things)} on {question.colour}"


def _compact(found):
    """A line for each question."""
    lines = ['{"setting": ' + json.dumps(found["setting"]) + ',\n"kinds": {']
    kinds = []
    for kind, of_kind in found["kinds"].items():
        head = f'{json.dumps(kind)}: {{"arms": {json.dumps(of_kind["arms"])},\n"whats": {json.dumps(of_kind["whats"])},\n'
        rows = (f"{json.dumps(key)}: {json.dumps(row)}" for key, row in of_kind["questions"].items())
        kinds.append(head + '"questions": {\n' + ",\n".join(rows) + "}}")
    return "\n".join([*lines, ",\n".join(kinds) + "}}\n"])
