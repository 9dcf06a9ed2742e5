"""Pictures of a plan: Mermaid text, and SVG without a browser.

The SVG is a layered drawing: each node one layer below the lowest of what it waits for, the order within
a layer improved by a few barycenter sweeps, so that most edges run straight down.

What is not plain work looks different: decisions are diamonds, waits are rounded, children have a double
border, a step that runs more than once is a stack of cards, and what starts executions is a small label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

from wpa.plan.waits import KINDS

__all__ = ["mermaid", "svg"]

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 176, 56, 36, 64, 24
SWEEPS: Final = 8

COLOURS: Final = {
    "completed": ("#dcfce7", "#16a34a"),
    "decided": ("#dcfce7", "#16a34a"),
    "running": ("#dbeafe", "#2563eb"),
    "retrying": ("#fef9c3", "#ca8a04"),
    "failed": ("#fee2e2", "#dc2626"),
    "compensated": ("#ede9fe", "#7c3aed"),
    "skipped": ("#f1f5f9", "#94a3b8"),
    "": ("#ffffff", "#475569"),
}


MERMAID_SHAPES: Final = {
    "step": ("[", "]"),
    "timer": ("([", "])"),
    "signal": (">", "]"),
    "approval": ("[/", "/]"),
    "child": ("[[", "]]"),
}
GLYPHS: Final = {"timer": "⏱ ", "signal": "✉ ", "approval": "✋ ", "child": "⧉ "}


class _Edge(NamedTuple):
    source: str
    target: str
    label: str


class _Graph:
    """The nodes and edges of a document that has been checked."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.items: dict[str, Mapping[str, Any]] = {item["id"]: item for item in document["steps"]}
        self.edges: list[_Edge] = []
        gated: set[tuple[str, str]] = set()
        for name, item in self.items.items():
            for branch in item.get("switch", ()):
                self._branch(name, branch["next"], _short(_bare(branch["when"])), gated)
            if item.get("default"):
                self._branch(name, item["default"], "otherwise", gated)
        for name, item in self.items.items():
            for need in item.get("needs", ()):
                if (need, name) not in gated:
                    self.edges.append(_Edge(need, name, ""))
        self._starts(document)

    def _starts(self, document: Mapping[str, Any]) -> None:
        """What starts executions leads to the first steps, what signals to the steps that wait for it."""
        reached = {edge.target for edge in self.edges}
        roots = [name for name in self.items if name not in reached]
        if (schedule := document.get("schedule")) is not None:
            when = schedule.get("cron") or f"every {schedule['every']}"
            self._entry("schedule:", {"entry": f"⏱ {when}"}, roots)
        for index, trigger in enumerate(document.get("triggers", ())):
            targets = roots
            if "signal" in trigger:
                targets = [
                    name for name, item in self.items.items() if _signal(item) == trigger["signal"]["name"]
                ]
            self._entry(f"trigger:{index}", {"entry": f"⚡ {trigger['subject']}"}, targets)

    def _entry(self, name: str, item: Mapping[str, Any], targets: list[str]) -> None:
        # No step's id has a colon in it.
        self.items[name] = item
        self.edges += [_Edge(name, target, "") for target in targets]

    def _branch(self, source: str, targets: Any, label: str, gated: set[tuple[str, str]]) -> None:
        for target in [targets] if isinstance(targets, str) else targets:
            self.edges.append(_Edge(source, target, label))
            gated.add((source, target))

    def layers(self) -> list[list[str]]:
        """Nodes by longest path from a root, ordered so that edges cross little."""
        depth = dict.fromkeys(self.items, 0)
        parents: dict[str, list[str]] = {name: [] for name in self.items}
        children: dict[str, list[str]] = {name: [] for name in self.items}
        for edge in self.edges:
            parents[edge.target].append(edge.source)
            children[edge.source].append(edge.target)
        waiting = {name: len(found) for name, found in parents.items()}
        ready = [name for name, count in waiting.items() if count == 0]
        while ready:
            name = ready.pop()
            for child in children[name]:
                depth[child] = max(depth[child], depth[name] + 1)
                waiting[child] -= 1
                if waiting[child] == 0:
                    ready.append(child)
        layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
        for name, row in depth.items():
            layers[row].append(name)
        for sweep in range(SWEEPS):
            near = parents if sweep % 2 == 0 else children
            place = {name: index - len(layer) / 2 for layer in layers for index, name in enumerate(layer)}
            for layer in layers if sweep % 2 == 0 else reversed(layers):
                layer.sort(key=lambda name: _mean([place[other] for other in near[name]], place[name]))
                place.update({name: index - len(layer) / 2 for index, name in enumerate(layer)})
        return layers


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _bare(expression: str) -> str:
    text = expression.strip()
    return text[2:-1].strip() if text.startswith("${") and text.endswith("}") else text


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _signal(item: Mapping[str, Any]) -> Any:
    return item.get("with", {}).get("signal") if item.get("uses") == "core.wait" else None


def _loop(item: Mapping[str, Any]) -> str:
    """In words, how often a step runs; empty for once."""
    if (each := item.get("foreach")) is not None:
        source = _bare(each["in"]) if isinstance(each["in"], str) else f"{len(each['in'])} items"
        return f"each {each.get('as', 'item')} in {source}"
    if (again := item.get("repeat")) is not None:
        word = "until" if "until" in again else "while"
        return f"↻ {word} {_bare(again[word])}"
    return ""


def _join(item: Mapping[str, Any]) -> str:
    """In words, how many of its needs a step waits for; empty for all."""
    join = item.get("join", "all")
    if isinstance(join, int):
        return f"{join} of {len(item.get('needs', ()))}"
    return "" if join == "all" else str(join)


def mermaid(document: Mapping[str, Any], states: Mapping[str, str] | None = None) -> str:
    """The plan as a Mermaid flowchart; ``states`` (step id to status) colours it."""
    graph = _Graph(document)
    number = {name: f"n{index}" for index, name in enumerate(graph.items)}
    lines = ["flowchart TD"]
    for name, item in graph.items.items():
        lines.append(f"    {number[name]}{_mermaid_node(name, item)}")
    for edge in graph.edges:
        label = f'|"{_quote(edge.label)}"|' if edge.label else ""
        lines.append(f"    {number[edge.source]} -->{label} {number[edge.target]}")
    for state in sorted(set((states or {}).values()) & set(COLOURS)):
        fill, stroke = COLOURS[state]
        members = ",".join(
            number[name] for name, found in (states or {}).items() if found == state and name in number
        )
        if state and members:
            lines += [f"    classDef {state} fill:{fill},stroke:{stroke}", f"    class {members} {state}"]
    return "\n".join(lines) + "\n"


def _mermaid_node(name: str, item: Mapping[str, Any]) -> str:
    if "entry" in item:
        return f'@{{ shape: text, label: "{_quote(item["entry"])}" }}'
    join = f"<br/>join: {_join(item)}" if _join(item) else ""
    if "switch" in item:
        return f'{{"{name}{join}"}}'
    left, right = MERMAID_SHAPES[KINDS.get(item["uses"], "step")]
    loop = f"<br/>{_quote(_short(_loop(item)))}" if _loop(item) else ""
    undo = f"<br/>undo: {item['compensate']['uses']}" if item.get("compensate") else ""
    return f'{left}"{name}<br/><i>{_quote(item["uses"])}</i>{loop}{undo}{join}"{right}'


def _quote(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def svg(document: Mapping[str, Any], states: Mapping[str, str] | None = None) -> str:
    """The plan as a self-contained SVG drawing; ``states`` (step id to status) colours it."""
    graph = _Graph(document)
    layers = graph.layers()
    widest = max(len(layer) for layer in layers)
    width = MARGIN * 2 + widest * WIDTH + (widest - 1) * GAP_X
    height = MARGIN * 2 + len(layers) * HEIGHT + (len(layers) - 1) * GAP_Y
    centre: dict[str, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        left = (width - len(layer) * WIDTH - (len(layer) - 1) * GAP_X) / 2
        for column, name in enumerate(layer):
            x = left + column * (WIDTH + GAP_X) + WIDTH / 2
            centre[name] = (x, MARGIN + row * (HEIGHT + GAP_Y) + HEIGHT / 2)
    title = escape(f"{document.get('id', '')} {document.get('version', '')}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"',
        f'height="{height:g}" font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{title}</title>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"',
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    parts += [_edge(edge, centre) for edge in graph.edges]
    parts += [
        _node(name, item, centre[name], (states or {}).get(name, "")) for name, item in graph.items.items()
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _edge(edge: _Edge, centre: Mapping[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = centre[edge.source], centre[edge.target]
    y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
    bend = min(GAP_Y * 0.6, (y2 - y1) / 2)
    line = (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" '
        'fill="none" stroke="#64748b" stroke-width="1.4" marker-end="url(#a)"/>'
    )
    if not edge.label:
        return line
    # The label sits near the arrow's head, where branches have parted.
    share = 0.62
    x, y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share
    text = (
        f'<text x="{x:g}" y="{y:g}" text-anchor="middle" font-size="11" fill="#334155" stroke="#ffffff" '
        f'stroke-width="4" paint-order="stroke">{escape(edge.label)}</text>'
    )
    return line + text


def _node(name: str, item: Mapping[str, Any], at: tuple[float, float], state: str) -> str:
    x, y = at
    fill, stroke = COLOURS.get(state, COLOURS[""])
    dash = ' stroke-dasharray="4 3"' if state == "skipped" else ""
    style = f'fill="{fill}" stroke="{stroke}" stroke-width="1.6"{dash}'
    left, top = x - WIDTH / 2, y - HEIGHT / 2
    if "entry" in item:
        line = f'<line x1="{left:g}" y1="{top + HEIGHT:g}" x2="{left + WIDTH:g}" y2="{top + HEIGHT:g}"'
        return f'{line} stroke="#64748b"/>' + _text(x, y + 20, _short(item["entry"], 26), 'fill="#334155"')
    if "switch" in item:
        points = f"{x:g},{top:g} {left + WIDTH:g},{y:g} {x:g},{top + HEIGHT:g} {left:g},{y:g}"
        shape = f'<polygon points="{points}" {style}/>'
        return shape + _text(x, y + 4, _short(name, 18), 'font-weight="600"') + _badge(item, left, top)
    body = _card(item, left, top, style) + _lines(name, item, x, y) + _badge(item, left, top)
    if state:
        body += f"<title>{escape(name)}: {escape(state)}</title>"
    return f"<g>{body}</g>"


def _card(item: Mapping[str, Any], left: float, top: float, style: str) -> str:
    """The outline of a step, by its kind; what runs more than once has others behind it."""
    kind = KINDS.get(item["uses"], "step")
    radius = HEIGHT / 2 if kind in ("timer", "signal", "approval") else 8

    def box(shift: float) -> str:
        place = f'x="{left + shift:g}" y="{top - shift:g}" width="{WIDTH}" height="{HEIGHT}"'
        return f'<rect {place} rx="{radius:g}" {style}/>'

    card = box(8) + box(4) + box(0) if _loop(item) else box(0)
    if kind == "child":
        inner = f'x="{left + 4:g}" y="{top + 4:g}" width="{WIDTH - 8}" height="{HEIGHT - 8}"'
        card += f'<rect {inner} rx="5" {style}/>'
    return card


def _lines(name: str, item: Mapping[str, Any], x: float, y: float) -> str:
    """What is written on a step: up to four lines."""
    glyph = GLYPHS.get(KINDS.get(item["uses"], "step"), "")
    lines = [
        (_short(name, 22), 'font-weight="600"'),
        (_short(glyph + item["uses"], 26), 'font-size="11" fill="#475569"'),
    ]
    if loop := _loop(item):
        lines.append((_short(loop, 28), 'font-size="10" fill="#0369a1"'))
    if item.get("compensate"):
        lines.append((_short("↩ " + item["compensate"]["uses"], 28), 'font-size="10" fill="#7c3aed"'))
    heights = (-14, 0, 12, 23) if len(lines) == 4 else (-10, 6, 20) if loop else (-6, 11, 24)
    return "".join(_text(x, y + dy, text, more) for dy, (text, more) in zip(heights, lines, strict=False))


def _badge(item: Mapping[str, Any], left: float, top: float) -> str:
    """The way in which a step joins its needs, on its upper edge."""
    join = _join(item)
    if not join:
        return ""
    width = 12 + 7 * len(join)
    place = f'x="{left + 10:g}" y="{top - 9:g}" width="{width}" height="18"'
    box = f'<rect {place} rx="9" fill="#0f766e"/>'
    return box + _text(left + 10 + width / 2, top + 4, join, 'font-size="11" fill="#ffffff"')


def _text(x: float, y: float, text: str, more: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" {more}>{escape(text)}</text>'
