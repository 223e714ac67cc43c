"""Where the milliseconds go: what each path's requests spend in each layer, from the client to the engine and back.

Paths stand side by side at each load point. What the parts are and where they come from was settled when they were
measured; here they are put into words, bars and rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.measure.layers import LAYERS, in_process
from enginebench.report.cells import CellView, Json, cells_of, path_rank
from enginebench.report.compare import doubts
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.summary import is_reference
from enginebench.report.units import DASH, MINUS, Scale, count, percent
from enginebench.report.view import Column, Table, Text

WORDS = {
    "client": "client and network",
    "http_queue": "HTTP and queue",
    "preprocessing": "preprocessing",
    "slot": "waiting for a batch slot",
    "prefill": "prefill",
    "decode": "decode",
    "postprocessing": "postprocessing",
}
UNEXPLAINED = "unexplained"
ENDS = {"first": "To the first token", "whole": "To the last token"}
MAX_FIGURES = 6
LEAST_SHARE = 0.0005
"""Of the time to the last token: less than this is nothing."""
SCALE = Scale("ms", 1e3, 1)
"""One unit for all parts: shares of a millisecond and whole seconds stand beside each other."""
LEAD = (
    "Mean time of a request in each layer between the client and the engine, path by path. Parts of the direct path "
    "are of the measured rounds. Those of server paths come from one more round after them, in which the server was "
    "asked for traces and perf metrics, and which counts in no metric; where it has none, from its statistics of the "
    "measured rounds. What no source explains is always shown."
)


@dataclass(frozen=True, slots=True)
class _Way:
    """One path at a load point: its waterfalls as they stand in run.json, by end."""

    cell: CellView
    falls: Mapping[str, Json]
    observed: Json  # what the observed round was; empty for the direct path

    @property
    def told(self) -> bool:
        """Whether anything but the client's stamps says where time goes."""
        return bool(self.observed or self.cell.record.get("engine"))


def layers_section(run: Json, _directory: Path | None) -> Section | None:
    """The waterfalls, load point by load point; None where neither a server nor an engine told anything."""
    points = [ways for ways in _points(cells_of(run)) if any(way.told for way in ways)]
    if not points:
        return None
    shown = points[-MAX_FIGURES:]
    figures = tuple(_figure(number, ways) for number, ways in enumerate(shown, 1))
    return Section("layers", "Where the time goes", LEAD, figures, (_differences(points),), tuple(_notes(run, points)))


def _points(cells: Sequence[CellView]) -> Iterator[list[_Way]]:
    """Measured cells that differ in their path alone, in the order of the layers."""
    groups: dict[tuple[object, ...], list[CellView]] = {}
    for cell in cells:
        if cell.measured:
            key = (cell.scenario, cell.streaming, cell.output_words, cell.load.label)
            groups.setdefault(key, []).append(cell)
    for members in groups.values():
        ways = [_way(cell) for cell in sorted(members, key=lambda cell: path_rank(cell.path))]
        yield [way for way in ways if "whole" in way.falls]


def _way(cell: CellView) -> _Way:
    found = (cell.record.get("server") or {}).get("layers")
    if found:
        return _Way(cell, {end: found[end] for end in ENDS if found.get(end)}, found)
    if cell.path != "direct":
        return _Way(cell, {}, {})
    return _Way(cell, {end: fall.as_json() for end, fall in in_process(cell.record).items()}, {})


def _figure(number: int, ways: Sequence[_Way]) -> Figure:
    ends = [end for end in ENDS if any(end in way.falls for way in ways)]
    cell = ways[0].cell
    mode = "" if cell.streaming else ", without streaming"
    title = f"{cell.scenario}, {cell.output_words} tokens out, {cell.load.words}{mode}"
    return Figure(
        id=f"layers-{number}",
        title=title,
        finding=_finding(ways),
        plots=tuple(_plot(end, ways) for end in ends),
        table=_table(title, ways),
    )


def _plot(end: str, ways: Sequence[_Way]) -> Plot:
    """The same series in the same order in every plot of a figure, so that a layer keeps its colour."""
    names = tuple(way.cell.path for way in ways)[::-1]  # plots count upwards
    kinds = dict.fromkeys(
        tuple(part["layers"]) for way in ways for fall in way.falls.values() for part in fall["parts"]
    )
    ordered = sorted(kinds, key=lambda layers: (LAYERS.index(layers[0]), len(layers)))
    marks = [_bars(_words(layers), [_seconds(way, end, layers) for way in ways], names) for layers in ordered]
    rest = [max(0.0, way.falls[end]["residual_s"]) if end in way.falls else None for way in ways]
    marks.append(_bars(UNEXPLAINED, rest, names, role="muted"))
    x = Axis("mean time of a request", SCALE.symbol, better="lower")
    return Plot(ENDS[end], x, Axis("path"), tuple(marks), stacked=True, horizontal=True)


def _bars(name: str, seconds: Sequence[float | None], names: tuple[str, ...], role: str = "") -> Marks:
    values = [None if value is None else value * SCALE.factor for value in seconds][::-1]
    texts = tuple(
        f"{path}, {name}: {DASH if value is None else SCALE.text(value / SCALE.factor)}"
        for path, value in zip(names, values, strict=True)
    )
    return Marks(name, "bars", tuple(value or 0.0 for value in values), names, texts=texts, role=role)


def _seconds(way: _Way, end: str, layers: tuple[str, ...]) -> float | None:
    parts = way.falls[end]["parts"] if end in way.falls else ()
    return next((max(0.0, part["s"]) for part in parts if tuple(part["layers"]) == layers), None)


def _words(layers: Sequence[str]) -> str:
    return ", ".join(WORDS[layer] for layer in layers)


def _finding(ways: Sequence[_Way]) -> str:
    """Of the outermost path: what it adds to the innermost, its largest part, and what is unexplained."""
    inner, outer = ways[0], ways[-1]
    fall = outer.falls["whole"]
    total_s = fall["total_s"]
    sentence = (
        f"On the {outer.cell.path} path {_largest(fall)} the {SCALE.text(total_s)} to the last token, and "
        f"{_rest(fall['residual_s'] / total_s)}."
    )
    inner_s, outer_s = (way.cell.statistic("e2e_latency", "mean") for way in (inner, outer))
    if inner is not outer and inner_s and outer_s:
        verb = "adds" if outer_s >= inner_s else "saves"
        sentence += (
            f" In the measured rounds it {verb} {SCALE.text(abs(outer_s - inner_s))} to the {inner.cell.path} path's "
            f"{SCALE.text(inner_s)} ({percent(outer_s / inner_s - 1)})."
        )
    return sentence + doubts([outer.cell] if inner is outer else [inner.cell, outer.cell])


def _largest(fall: Json) -> str:
    if not fall["parts"]:
        return "no part is known of"
    largest = max(fall["parts"], key=lambda part: part["s"])
    return f"{_words(largest['layers'])} takes {largest['s'] / fall['total_s']:.0%} of"


def _rest(share: float) -> str:
    if abs(share) < LEAST_SHARE:
        return f"nothing is {UNEXPLAINED}"
    return f"{abs(share):.1%} is {UNEXPLAINED if share > 0 else 'counted twice'}"


def _table(caption: str, ways: Sequence[_Way]) -> Table:
    ends = [end for end in ENDS if any(end in way.falls for way in ways)]
    columns = [Column("Path", numeric=False), Column("Layer", numeric=False)]
    for end in ends:
        columns += [Column(ENDS[end], "ms"), Column("share")]
    columns.append(Column("Source", numeric=False))
    rows = [row for way in ways for row in _rows(way, ends)]
    return Table(caption, tuple(columns), tuple(rows))


def _rows(way: _Way, ends: Sequence[str]) -> Iterator[tuple[Text, ...]]:
    sources = {tuple(p["layers"]): p["source"] for end in ends for p in way.falls.get(end, {}).get("parts", ())}
    for layers in sorted(sources, key=lambda layers: (LAYERS.index(layers[0]), len(layers))):
        why = "not told apart here" if len(layers) > 1 else None
        yield _row(way, Text(_words(layers), why), [_part(way, end, layers) for end in ends], ends, sources[layers])
    unknown = {layer: None for end in ends for layer in way.falls.get(end, {}).get("with_residual", ())}
    rest = f"{UNEXPLAINED}, with {_words(list(unknown))}" if unknown else UNEXPLAINED
    values = [way.falls[end]["residual_s"] if end in way.falls else None for end in ends]
    yield _row(way, Text(rest), values, ends, "what is left")
    observed = "observed round" if way.observed.get("requests") else "measured rounds"
    totals = [way.falls[end]["total_s"] if end in way.falls else None for end in ends]
    yield _row(way, Text(f"all, {observed}"), totals, ends, "our stamps")
    if way.observed.get("requests"):
        texts = [Text(way.cell.path, path=way.cell.path), Text("all, measured rounds")]
        for end in ends:
            fall = way.falls.get(end)
            texts += [Text(f"{fall['measured_s'] * 1e3:,.2f}") if fall else Text(DASH, "not streamed"), _against(fall)]
        yield (*texts, Text("our stamps"))


def _against(fall: Json | None) -> Text:
    """How much slower or faster the measured rounds were than the observed one."""
    if fall is None or not fall["total_s"]:
        return Text(DASH, "not streamed")
    return Text(percent(fall["measured_s"] / fall["total_s"] - 1), "against the observed round")


def _part(way: _Way, end: str, layers: tuple[str, ...]) -> float | None:
    parts = way.falls[end]["parts"] if end in way.falls else ()
    return next((part["s"] for part in parts if tuple(part["layers"]) == layers), None)


def _row(way: _Way, layer: Text, seconds: Sequence[float | None], ends: Sequence[str], source: str) -> tuple[Text, ...]:
    texts = [Text(way.cell.path, path=way.cell.path), layer]
    for end, value in zip(ends, seconds, strict=True):
        if value is None:
            texts += [Text(DASH, "not on the way to this token"), Text(DASH, "not on the way to this token")]
            continue
        share = value / way.falls[end]["total_s"]
        texts.append(Text(_signed(f"{value * 1e3:,.2f}")))
        texts.append(Text(_signed(f"{share:.1%}"), share=min(1.0, max(0.0, share))))
    return (*texts, Text(source))


def _signed(text: str) -> str:
    """With a minus of its own, and none before a zero."""
    return text.replace("-", MINUS if any(digit in text for digit in "123456789") else "")


def _differences(points: Sequence[Sequence[_Way]]) -> Table:
    """What the measured rounds say: the same requests on the next path out, and what that adds."""
    columns = (
        Column("Path", numeric=False),
        Column("Load point", numeric=False),
        Column("Mean TTFT", "ms"),
        Column("against the path before", "ms"),
        Column("Mean E2E latency", "ms"),
        Column("against the path before", "ms"),
    )
    rows = []
    for ways in points:
        for before, way in zip([None, *ways[:-1]], ways, strict=True):
            cell = way.cell
            mode = "" if cell.streaming else ", whole"
            texts = [Text(cell.path, path=cell.path)]
            texts.append(Text(f"{cell.scenario}, {cell.output_words} out, {cell.load.words}{mode}"))
            for metric in ("ttft", "e2e_latency"):
                texts += _difference(cell, before.cell if before else None, metric)
            rows.append(tuple(texts))
    return Table("What each path adds, in the measured rounds", columns, tuple(rows))


def _difference(cell: CellView, before: CellView | None, metric: str) -> tuple[Text, Text]:
    value = cell.statistic(metric, "mean")
    if value is None:
        why = cell.why_none(metric, "mean")
        return Text(DASH, why), Text(DASH, why)
    earlier = before.statistic(metric, "mean") if before else None
    mine = Text(f"{value * 1e3:,.2f}")
    if earlier is None:
        return mine, Text(DASH, "the innermost path here")
    return mine, Text(f"{(value - earlier) * 1e3:+,.2f}".replace("-", MINUS))


def _notes(run: Json, points: Sequence[Sequence[_Way]]) -> Iterator[str]:
    if len(points) > MAX_FIGURES:
        left_out = len(points) - MAX_FIGURES
        yield f"{count(left_out, 'load point')} before these are in run.json, and in the table below, but not drawn."
    yield (
        "Means, since means can be added up. Waiting for a batch slot, prefill and decode are the engine's own record "
        "where it keeps one (perf metrics); layers that this version does not tell apart are one part."
    )
    if any(way.observed.get("servers", 1) > 1 for ways in points for way in ways):
        yield (
            "Where several servers are behind a path, means are over the requests of all, and Triton's statistics "
            "are added up before they are divided by requests."
        )
    reasons = dict.fromkeys(
        way.observed["why_not_traced"] for ways in points for way in ways if way.observed.get("why_not_traced")
    )
    for reason in reasons:
        yield f"Not traced: {str(reason).rstrip('.')}."
    if is_reference(run):
        yield "The engine is the reference engine: the shares say how the flow works, not how TensorRT-LLM does."
