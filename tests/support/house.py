"""The pack's source as the rules of its shape see it: files by room, what they import, what they name."""

import ast
from functools import cached_property


class House:
    """The product's files below a root folder."""

    def __init__(self, root):
        self.root = root
        paths = [root / "__init__.py", *(root / "nodes").rglob("*.py"), *(root / "kernels").rglob("*.py")]
        self.product = [File(path, root) for path in sorted(paths)]

    @cached_property
    def rooms(self):
        """Names of the rooms: the folders of nodes/ that hold Python files."""
        return {file.room for file in self.product} - {None, "kernels"}

    @cached_property
    def graph(self):
        """{room: rooms that it imports}."""
        found = {}
        for file in self.product:
            if file.room in self.rooms:
                found.setdefault(file.room, set()).update(file.imported_rooms & self.rooms)
        return found

    @cached_property
    def contents(self):
        """The text of the table of contents."""
        return (self.root / "nodes" / "__init__.py").read_text(encoding="utf-8")


class File:
    """One file of the product."""

    def __init__(self, path, root):
        self.root, self.path = root, path.relative_to(root)
        self.name = path.name
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.room = room_of(self.path.parts)

    @cached_property
    def _imports(self):
        """[(absolute module of the pack or None, module as written, whether at the top)]."""
        found = []
        for node in ast.walk(self.tree):
            top = node in self.tree.body
            if isinstance(node, ast.Import):
                found += [(None, alias.name, top) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.append((None, node.module, top))
            elif isinstance(node, ast.ImportFrom):
                base = (*self.path.parts[: len(self.path.parts) - node.level], *(node.module or "").split("."))
                base = tuple(part for part in base if part)
                found += [((*base, alias.name), "", top) for alias in node.names]
        return found

    @property
    def imports(self):
        """Modules that are not the pack's."""
        return {written for own, written, _ in self._imports if own is None}

    @property
    def top_imports(self):
        """Those of them that are imported with the file."""
        return {written for own, written, top in self._imports if own is None and top}

    @cached_property
    def imported_rooms(self):
        """Rooms that it imports; "kernels" for those, "" for the graph floor beside the rooms."""
        if self.room is None:
            return set()
        return {self._room_of_import(own) for own, _, _ in self._imports if own}

    def _room_of_import(self, own):
        # nodes.widgets is a module beside the rooms, nodes.masks.x one in a room
        if own[0] == "nodes" and (len(own) < 3 or not (self.root / "nodes" / own[1]).is_dir()):
            return ""
        return room_of((*own, "x.py"))

    def imported_of(self, room):
        """Modules of a room that it imports."""
        return {own[2] for own, _, _ in self._imports if own and len(own) > 2 and own[:2] == ("nodes", room)}

    @cached_property
    def functions(self):
        """All functions and methods."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    @cached_property
    def classes(self):
        """All classes."""
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @cached_property
    def public(self):
        """Names without an underscore that it defines at its top."""
        found = set()
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        return {name for name in found if not name.startswith("_")}

    @cached_property
    def words(self):
        """All attributes of others and all whole strings in the code."""
        return {
            *(node.attr for node in ast.walk(self.tree) if isinstance(node, ast.Attribute) and not _of_self(node)),
            *(node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant)),
        }

    @cached_property
    def names_in_order(self):
        """All names in the code, as often as they stand there: where they are defined, imported, read."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name):
                found.append(node.id)
            elif isinstance(node, ast.Attribute):
                found.append(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.append(node.name)
            elif isinstance(node, ast.ImportFrom):
                found += [alias.name for alias in node.names]
        return found

    def makers_of(self, name):
        """Functions that return what a call of this name gives."""
        for function in self.functions:
            returned = (node.value for node in ast.walk(function) if isinstance(node, ast.Return))
            if any(isinstance(value, ast.Call) and ast.unparse(value.func) == name for value in returned):
                yield function.name

    def docstring_of(self, function):
        """The docstring of a function; of __init__ and __post_init__ with that of the class."""
        own = ast.get_docstring(function) or ""
        owner = next((c for c in self.classes if function in c.body), None)
        if owner is not None and function.name.startswith("__"):
            own += ast.get_docstring(owner) or ""
        return own


def room_of(parts):
    """The room of a path's parts; "kernels" for those, None for what stands beside the rooms."""
    if parts[0] == "kernels":
        return "kernels"
    return parts[1] if parts[0] == "nodes" and len(parts) > 2 else None


def _of_self(node):
    return isinstance(node.value, ast.Name) and node.value.id == "self"
