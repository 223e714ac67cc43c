"""Profiled reruns on the page: how their time divides, what delayed the slowest tokens, what the GPU did.

Reads what was worked out when they were taken. They were driven under a profiler: no number here is one of the run's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from enginebench.report.cells import Json
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.profile_tables import MS, place, tables
from enginebench.report.summary import is_reference
from enginebench.report.units import DASH
from enginebench.report.view import Column, Table, Text
from enginebench.store_profiles import Profile, read_profiles

LEAD = (
    "These cells were driven once more under a profiler, after the measurement. A profiler slows down what it watches, "
    "so that these times are compared with nothing and gated by nothing; they say where time goes, not how much it is."
)
REQUEST_PARTS = {
    "waiting_s": "waiting",
    "prefill_s": "prefill",
    "until_first_s": "waiting and prefill",
    "decode_s": "decode",
}
ENGINE_PARTS = {"prefill_s": "prefill", "decode_s": "decode", "idle_s": "waiting"}  # steps with a prompt, others, none
GPU_PARTS = {
    "busy_s": "the GPU computes or copies",
    "launch_gaps_s": "between two launches",
    "host_s": "waiting for the host",
}
ROLES = {"waiting": "muted", "decode": "good", "waiting for the host": "bad"}


def profiles_section(run: Json, directory: Path | None) -> Section | None:
    """Everything that profiled reruns say; None where there are none.

    Raises:
        RunError: a profile cannot be read.
    """
    profiles = read_profiles(directory) if directory is not None else ()
    if not profiles:
        return None
    figures = tuple(figure for figure in (_requests(profiles), _kernels(profiles), _gpu(profiles)) if figure)
    return Section("profiles", "Profiled reruns", LEAD, figures, tuple(tables(profiles)), tuple(_notes(run, profiles)))


def request_parts(profile: Profile) -> dict[str, float]:
    """Mean seconds of a request by what they were spent on; empty where nobody knows."""
    found = profile.data.get("requests") or {}
    if not found:
        return {}
    wanted = ("until_first_s", "decode_s") if found.get("waiting_s") is None else ("waiting_s", "prefill_s", "decode_s")
    return {REQUEST_PARTS[name]: found[name] for name in wanted}


def engine_parts(profile: Profile) -> dict[str, float]:
    """Seconds of the round by what the engine did; empty where nobody knows."""
    return _parts(profile.data.get("engine"), ENGINE_PARTS)


def gpu_parts(profile: Profile) -> dict[str, float]:
    """Seconds of the round by what the GPU did; empty where nobody knows."""
    return _parts(profile.data.get("gpu"), GPU_PARTS)


def family_parts(profile: Profile) -> dict[str, float]:
    """Seconds of the GPU by family of kernels; empty where nobody knows."""
    return {row["family"]: row["s"] for row in profile.data.get("families") or ()}


def _parts(found: Json | None, names: Mapping[str, str]) -> dict[str, float]:
    return {words: found[name] for name, words in names.items()} if found else {}


Split = tuple[Profile, dict[str, float]]


def _splits(profiles: Sequence[Profile], parts_of: Callable[[Profile], dict[str, float]]) -> list[Split]:
    return [(profile, parts) for profile in profiles if profile.taken and (parts := parts_of(profile))]


def _requests(profiles: Sequence[Profile]) -> Figure | None:
    """Requests: waiting, prefill, decode; the engine: steps with a prompt, others, none. The same colours for both."""
    requests, engine = _splits(profiles, request_parts), _splits(profiles, engine_parts)
    if not requests:
        return None
    plots = [_plot("A request, on average", requests, share=False)]
    if engine:
        plots.append(_plot("The engine, over the round", engine, share=True))
    return Figure(
        "profiles-requests",
        "Prefill, decode and waiting",
        _requests_finding(requests, engine),
        tuple(plots),
        _table("Prefill, decode and waiting", [*requests, *engine], "of a request, mean; of the engine, in all"),
    )


def _kernels(profiles: Sequence[Profile]) -> Figure | None:
    """Kernel families: what kind of work the GPU did."""
    splits = _splits(profiles, family_parts)
    if not splits:
        return None
    profile, parts = splits[0]
    largest = max(parts, key=lambda family: parts[family])
    share = parts[largest] / (sum(parts.values()) or 1.0)
    title = "Kernels and copies, by family"
    finding = f"In {place(profile)} {share:.0%} of what the GPU did is {largest}."
    plots = (_plot("Kernels and copies", splits, share=True),)
    return Figure("profiles-kernels", title, finding, plots, _table(title, splits, "time on the GPU"))


def _gpu(profiles: Sequence[Profile]) -> Figure | None:
    """How long the GPU computed, and how long it waited."""
    splits = _splits(profiles, gpu_parts)
    if not splits:
        return None
    profile, parts = splits[0]
    whole = sum(parts.values()) or 1.0
    host, gaps = parts[GPU_PARTS["host_s"]] / whole, parts[GPU_PARTS["launch_gaps_s"]] / whole
    title = "What the GPU waited for"
    finding = f"In {place(profile)} it waited {host:.1%} of the time for the host, and {gaps:.1%} between launches."
    plots = (_plot("The GPU, over the round", splits, share=True),)
    return Figure("profiles-gpu", title, finding, plots, _table(title, splits, "a gap below 0.1 ms is one launch"))


def _plot(title: str, splits: Sequence[Split], *, share: bool) -> Plot:
    """A bar a rerun; ``share``: in percent of the whole."""
    names = tuple(place(profile) for profile, _ in splits)[::-1]  # plots count upwards
    kinds = dict.fromkeys(words for _, parts in splits for words in parts)
    marks = tuple(_bars(words, splits[::-1], names, share=share) for words in kinds)
    axis = Axis("share of the time", "%") if share else Axis("mean time", MS.symbol)
    return Plot(title, axis, Axis(""), marks, stacked=True, horizontal=True)


def _bars(words: str, splits: Sequence[Split], names: tuple[str, ...], *, share: bool) -> Marks:
    seconds = [parts.get(words, 0.0) for _, parts in splits]
    wholes = [sum(parts.values()) or 1.0 for _, parts in splits]
    shares = [100 * each / whole for each, whole in zip(seconds, wholes, strict=True)]
    texts = tuple(
        f"{name}, {words}: {MS.text(each)}, {part:.1f}%"
        for name, each, part in zip(names, seconds, shares, strict=True)
    )
    values = shares if share else [each * MS.factor for each in seconds]
    return Marks(words, "bars", tuple(values), names, texts=texts, role=ROLES.get(words, ""))


def _requests_finding(requests: Sequence[Split], engine: Sequence[Split]) -> str:
    profile, parts = requests[0]
    whole = sum(parts.values()) or 1.0
    said = ", ".join(f"{words} {each / whole:.0%}" for words, each in parts.items())
    sentence = f"A request of {profile.cell_id} spends its time so: {said}."
    if engine:
        parts = engine[0][1]
        prompt = parts[ENGINE_PARTS["prefill_s"]] / (sum(parts.values()) or 1.0)
        sentence += f" Steps that compute a prompt take {prompt:.0%} of the round, for everyone who waits in them."
    return sentence


def _table(caption: str, splits: Sequence[Split], what: str) -> Table:
    columns = (Column("Rerun", numeric=False), Column("Part", numeric=False), Column("Time", "ms"), Column("Share"))
    rows = [
        (Text(place(profile)), Text(words), Text(MS.number(each)), _share(each, sum(parts.values())))
        for profile, parts in splits
        for words, each in parts.items()
    ]
    return Table(f"{caption} ({what})", columns, tuple(rows))


def _share(seconds: float, whole: float) -> Text:
    return Text(f"{seconds / whole:.1%}", share=min(1.0, seconds / whole)) if whole else Text(DASH, "nothing ran")


def _notes(run: Json, profiles: Sequence[Profile]) -> Iterator[str]:
    for profile in profiles:
        if command := profile.data.get("command"):
            yield f"{place(profile)} ran as: {' '.join(command)}"
    said = dict.fromkeys(note for profile in profiles for note in profile.data.get("notes", ()))
    yield from (str(note) for note in said)
    yield (
        "A gap runs from one arrival of a request to its next. Its cause is the suspect that explains most of what it "
        "has more than the median gap, and at least half of it; otherwise it is unexplained."
    )
    yield f"enginebench trace {run['id']} writes all of it on one time axis, for ui.perfetto.dev."
    if is_reference(run):
        yield "The engine is the reference engine: a KV block is one of its slots, and its time is not TensorRT-LLM's."
