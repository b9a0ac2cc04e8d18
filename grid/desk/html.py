"""HTML out of Python: everything is escaped unless it was made here."""

from __future__ import annotations

from html import escape

VOID = frozenset({"input", "meta", "link", "br"})


class Html(str):
    """Markup made by :func:`el`; any other text is escaped when it is put in."""

    __slots__ = ()


Child = str | int | None
Attribute = str | int | bool | None


def el(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """One element. ``class_`` stands for ``class``, ``data_state`` for ``data-state``; ``None``, False: left out."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(f" {label}" if value is True else f' {label}="{escape(str(value), quote=True)}"')
    parts.append(">")
    if name in VOID:
        return Html("".join(parts))
    parts.append(join(*children))
    parts.append(f"</{name}>")
    return Html("".join(parts))


def join(*children: Child) -> Html:
    """Children one after the other."""
    return Html("".join(c if isinstance(c, Html) else escape(str(c), quote=True) for c in children if c is not None))
