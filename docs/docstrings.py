"""Lay out docstrings for the site: each described parameter is an item of a list, as its line in the source says.

The docstrings say "name: what it is." on a line of its own, or after two spaces. Markdown would join these lines.
"""

import re

import griffe


def laid_out(text: str, names: set[str]) -> str:
    """Return a docstring's Markdown, with each "name: ..." of the parameters `names` as an item of a list."""
    lines, in_item = [], False
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    item = re.compile(rf"((?:{name})(?:, (?:{name}))*): ") if names else None
    for line in text.splitlines():
        for part in re.split(r"(?<=\.)  (?=\w)", line):
            found = item.match(part) if item else None
            if found:
                lines += [*[""] * (not in_item), f"- `{found[1]}`: {part[found.end() :]}"]
            elif in_item and re.match(r"(Returns?|Raises|Yields?) ", part):
                lines += ["", part]
            else:
                lines.append(f"  {part.strip()}" if in_item and part.strip() else part)
            in_item = bool(found) or (
                in_item and bool(part.strip()) and not re.match(r"(Returns?|Raises|Yields?) ", part)
            )
    return "\n".join(lines)


class Parameters(griffe.Extension):
    """Rewrite the docstrings of functions, and of classes by the parameters of their constructors."""

    def on_function(self, *, func: griffe.Function, **_) -> None:
        """Lay out a function's docstring."""
        self._rewrite(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_) -> None:
        """Lay out a class's docstring, by its constructor and its fields."""
        start = cls.members.get("__init__")
        names = {p.name for p in start.parameters} if isinstance(start, griffe.Function) else set()
        self._rewrite(cls, names | {name for name, member in cls.members.items() if member.is_attribute})

    @staticmethod
    def _rewrite(thing: griffe.Object, names: set[str]) -> None:
        if thing.docstring:
            thing.docstring.value = laid_out(thing.docstring.value, names - {"self"})
