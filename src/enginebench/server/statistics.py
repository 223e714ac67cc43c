"""Triton's own counters of every model, read before and after: what it counted and where requests waited meanwhile.

Counts only what ended between the two readings. Triton adds up durations for each request: a batch of three counts
its time three times. Of a decoupled model on the python backend ``compute_infer`` ends when it took the request over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from enginebench.errors import ServerError
from enginebench.server.plain_http import fetch_json

_DURATIONS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """What Triton counted for one model, over a time. Durations are sums over requests."""

    requests: int  # that ended well
    failed: int
    inferences: int
    executions: int  # less than inferences where requests were batched
    duration_s: float  # from the arrival of a request to its end, of those that ended well
    queue_s: float
    compute_input_s: float
    compute_infer_s: float
    compute_output_s: float

    @property
    def compute_s(self) -> float:
        """Of all requests, without the queue."""
        return self.compute_input_s + self.compute_infer_s + self.compute_output_s

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return asdict(self)


def read_statistics(url: str) -> dict[str, ModelCounts]:
    """The counters of each model of the server at ``url`` since it was loaded.

    Raises:
        ServerError: the server does not answer, or has no statistics (it can be built without them).
    """
    answer = fetch_json(f"{url}/v2/models/stats")
    try:
        return {model["name"]: _counts(model) for model in answer["model_stats"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{url}/v2/models/stats cannot be read (no {error}): is it Triton's HTTP port?") from error


def between(before: Mapping[str, ModelCounts], after: Mapping[str, ModelCounts]) -> dict[str, ModelCounts]:
    """What was counted from one reading to the other, of the models that did something.

    Raises:
        ServerError: a counter went backwards: the model was loaded anew meanwhile.
    """
    found = {}
    for name, now in after.items():
        then = before.get(name)
        difference = now if then is None else _minus(now, then)
        if difference.requests < 0 or difference.inferences < 0:
            raise ServerError(f"Triton's counters of the model {name!r} went backwards: it was loaded anew meanwhile.")
        if difference.requests or difference.failed or difference.inferences:
            found[name] = difference
    return found


def together(servers: Sequence[Mapping[str, ModelCounts]]) -> dict[str, ModelCounts]:
    """What several servers counted, added up by model."""
    found: dict[str, ModelCounts] = {}
    for counts in servers:
        for name, each in counts.items():
            found[name] = _plus(found[name], each) if name in found else each
    return found


def _counts(model: Mapping[str, Any]) -> ModelCounts:
    """Proto3 leaves zeros out of some versions' JSON: a missing counter counted nothing."""
    spent = model["inference_stats"]
    seconds = {f"{name}_s": int(spent.get(name, {}).get("ns", 0)) / 1e9 for name in _DURATIONS}
    return ModelCounts(
        requests=int(spent["success"].get("count", 0)),
        failed=int(spent.get("fail", {}).get("count", 0)),
        inferences=int(model.get("inference_count", 0)),
        executions=int(model.get("execution_count", 0)),
        duration_s=int(spent["success"].get("ns", 0)) / 1e9,
        **seconds,
    )


def _plus(one: ModelCounts, other: ModelCounts) -> ModelCounts:
    return ModelCounts(**{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(one)})


def _minus(now: ModelCounts, then: ModelCounts) -> ModelCounts:
    return ModelCounts(**{field.name: getattr(now, field.name) - getattr(then, field.name) for field in fields(now)})
