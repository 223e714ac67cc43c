"""The keys of a scenario file that say how requests are released, and which part of a round is counted.

What they become (``plan.load``) knows no files; when requests leave is worked out in ``arrivals``.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from enginebench.errors import ScenarioError
from enginebench.plan.keys import MOST, Count, Keys, OneOrMany, fraction, problem
from enginebench.plan.load import ARRIVALS, KINDS, Batch, Concurrency, Load, Rate, Trim
from enginebench.plan.messages import shown
from enginebench.plan.trace_file import read_trace

PerSecond = Annotated[float, Field(ge=0.01)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[
    float,
    BeforeValidator(fraction),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)? ?%$"}, {"type": "number", "minimum": 0, "maximum": 1}]}
    ),
]

_LENGTH = ("requests", "duration_s")
_ALLOWED = {
    "batch": ("sizes",),
    "concurrency": ("levels", *_LENGTH),
    "rate": ("per_s", "arrival", "burstiness", "ramp", "trace", "speedup", *_LENGTH),
}
_NEEDED = {
    "batch": ("sizes, e.g. sizes: [1, 8]", ("sizes",)),
    "concurrency": ("levels, e.g. levels: [4, 16]", ("levels",)),
    "rate": ("one of per_s and trace", ("per_s", "trace")),
}


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise problem(f"must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {shown(kind)}")
    return kind


def _known_arrival(arrival: str) -> str:
    if arrival not in _SHAPES:
        raise problem(f"must be {', '.join(_SHAPES[:-1])} or {_SHAPES[-1]}, not {shown(arrival)}")
    return arrival


_SHAPES = tuple(arrival for arrival in ARRIVALS if arrival != "trace")


def _kind_schema(kind: str) -> dict[str, Any]:
    return {
        "properties": {"kind": {"const": kind}},
        "propertyNames": {"enum": ["kind", *_ALLOWED[kind]]},
        "oneOf": [{"required": [key]} for key in _NEEDED[kind][1]],
    }


class Ramp(Keys):
    """A rate that changes: from ``per_s`` linearly to ``to_per_s`` at the end of the schedule."""

    to_per_s: PerSecond


class LoadKeys(Keys):
    """How requests are released: in batches, with so many in flight, or at a rate."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_kind_schema(kind) for kind in KINDS]})

    kind: Annotated[str, AfterValidator(_known_kind), Field(json_schema_extra={"enum": [*KINDS]})]
    sizes: Annotated[tuple[Count, ...], Field(min_length=1), OneOrMany(distinct=True)] | None = Field(
        default=None, description="batch: requests released at once."
    )
    levels: Annotated[tuple[Count, ...], Field(min_length=1), OneOrMany(distinct=True)] | None = Field(
        default=None, description="concurrency: requests in flight."
    )
    per_s: Annotated[tuple[PerSecond, ...], Field(min_length=1), OneOrMany(distinct=True)] | None = Field(
        default=None, description="rate: requests per second."
    )
    arrival: Annotated[str, AfterValidator(_known_arrival), Field(json_schema_extra={"enum": [*_SHAPES]})] | None = (
        Field(default=None, description="rate: how arrivals are spread; poisson by default.")
    )
    burstiness: PerSecond | None = Field(
        default=None, description="gamma: shape of the gaps; 1 is poisson, below it is burstier, above it more even."
    )
    ramp: Ramp | None = Field(default=None, description="rate: where it goes to, linearly.")
    trace: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="rate: a JSONL file of arrival times beside the scenario."
    )
    speedup: Seconds | None = Field(default=None, description="trace: how much faster than it was recorded.")
    requests: Count | None = Field(default=None, description="concurrency, rate: requests a round.")
    duration_s: Seconds | None = Field(default=None, description="concurrency, rate: seconds in which they leave.")
    _times_s: tuple[float, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _keys_fit(self, info: ValidationInfo) -> "LoadKeys":
        given = [key for key in type(self).model_fields if key != "kind" and getattr(self, key) is not None]
        for key in given:
            if key not in _ALLOWED[self.kind]:
                owners = " or ".join(kind for kind in KINDS if key in _ALLOWED[kind])
                raise problem(f"is no key of a {self.kind} load, but of {owners}; remove it", key)
        wanted, keys = _NEEDED[self.kind]
        if sum(key in given for key in keys) != 1:
            raise problem(f"is a {self.kind} load and needs {wanted}")
        if {*_LENGTH} <= {*given}:
            raise problem("and requests both set the length of a round; keep one of them", "duration_s")
        self._check_rate(given)
        if self.trace:
            self._times_s = self._read(Path((info.context or {}).get("directory", ".")) / self.trace)
        return self

    def _check_rate(self, given: list[str]) -> None:
        if (self.arrival == "gamma") != ("burstiness" in given):
            raise problem(
                "must stand together: arrival: gamma, burstiness: 0.5", "burstiness" if self.burstiness else "arrival"
            )
        for key in ("arrival", "burstiness", "ramp") if self.trace else ():
            if key in given:
                raise problem("has no meaning with a trace, which says when requests arrive; remove it", key)
        if (self.duration_s or 0) * max(self.per_s or (0,)) > MOST:
            raise problem(f"makes more than {MOST:,} requests a round; shorten it", "duration_s")
        if "speedup" in given and not self.trace:
            raise problem("needs a trace; change per_s instead", "speedup")

    @staticmethod
    def _read(path: Path) -> tuple[float, ...]:
        try:
            return read_trace(path)
        except ScenarioError as error:
            raise problem(f"cannot be used: {error}", "trace") from None

    @property
    def endless(self) -> bool:
        """Whether nothing here ends the schedule of an open loop."""
        return self.kind == "rate" and not (self.trace or self.requests or self.duration_s)

    def loads(self, requests: int | None) -> tuple[Load, ...]:
        """The loads of this entry; ``requests``: of a round, where the entry itself does not say."""
        if self.kind == "batch":
            return tuple(Batch(size) for size in self.sizes or ())
        wanted = self.requests if self.requests or self.duration_s or self.trace else requests
        if self.kind == "concurrency":
            return tuple(Concurrency(level, wanted, self.duration_s) for level in self.levels or ())
        return self._rates(wanted)

    def _rates(self, requests: int | None) -> tuple[Load, ...]:
        if self.trace:
            speedup = self.speedup or 1.0
            per_s = (len(self._times_s) - 1) / self._times_s[-1] * speedup
            times = {"trace": self.trace, "speedup": speedup, "times_s": self._times_s}
            return (Rate(per_s, "trace", requests=requests, duration_s=self.duration_s, **times),)  # type: ignore[arg-type]
        end = self.ramp.to_per_s if self.ramp else None
        arrival: Any = self.arrival or "poisson"
        return tuple(
            Rate(per_s, arrival, self.burstiness or 1.0, end, requests, self.duration_s) for per_s in self.per_s or ()
        )


class TrimKeys(Keys):
    """The beginning and the end of each round that do not count: in seconds, or as a share of the round."""

    warmup_s: Seconds | None = Field(default=None, description="Seconds from the start of a round.")
    cooldown_s: Seconds | None = Field(default=None, description="Seconds before the last release of a round.")
    warmup: Share | None = Field(default=None, description="Share of the round instead, e.g. 10%.")
    cooldown: Share | None = Field(default=None, description="Share of the round instead, e.g. 10%.")

    @model_validator(mode="after")
    def _one_of_each(self) -> "TrimKeys":
        for share, seconds in ((self.warmup, self.warmup_s), (self.cooldown, self.cooldown_s)):
            if share is not None and seconds is not None:
                raise problem("gives a share and seconds for the same end of a round; keep one of them")
        if (self.warmup or 0) + (self.cooldown or 0) >= 1:
            raise problem("leaves nothing of a round; trim less than 100%")
        return self

    @property
    def trim(self) -> Trim:
        """As plain data."""
        return Trim(self.warmup_s or 0.0, self.cooldown_s or 0.0, self.warmup or 0.0, self.cooldown or 0.0)
