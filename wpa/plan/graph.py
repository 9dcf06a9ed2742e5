"""Pictures of a plan: Mermaid text, and SVG without a browser.

The SVG is a layered drawing: each node one layer below the lowest of what it waits for, the order within
a layer improved by a few barycenter sweeps, so that most edges run straight down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

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


def mermaid(document: Mapping[str, Any], states: Mapping[str, str] | None = None) -> str:
    """The plan as a Mermaid flowchart; ``states`` (step id to status) colours it."""
    graph = _Graph(document)
    number = {name: f"n{index}" for index, name in enumerate(graph.items)}
    lines = ["flowchart TD"]
    for name, item in graph.items.items():
        if "switch" in item:
            lines.append(f'    {number[name]}{{"{name}"}}')
        else:
            undo = f"<br/>undo: {item['compensate']['uses']}" if item.get("compensate") else ""
            lines.append(f'    {number[name]}["{name}<br/><i>{_quote(item["uses"])}</i>{undo}"]')
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
    if "switch" in item:
        points = f"{x:g},{top:g} {left + WIDTH:g},{y:g} {x:g},{top + HEIGHT:g} {left:g},{y:g}"
        shape = f'<polygon points="{points}" {style}/>'
        return shape + _text(x, y + 4, _short(name, 18), 'font-weight="600"')
    shape = f'<rect x="{left:g}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}" rx="8" {style}/>'
    body = shape + _text(x, y - 6, _short(name, 22), 'font-weight="600"')
    body += _text(x, y + 11, _short(item["uses"], 26), 'font-size="11" fill="#475569"')
    if item.get("compensate"):
        undo = _short("↩ " + item["compensate"]["uses"], 28)
        body += _text(x, y + 24, undo, 'font-size="10" fill="#7c3aed"')
    if state:
        body += f"<title>{escape(name)}: {escape(state)}</title>"
    return f"<g>{body}</g>"


def _text(x: float, y: float, text: str, more: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" {more}>{escape(text)}</text>'
