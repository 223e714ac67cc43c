"""The Triton servers behind the path at hand, watched: preflight, their numbers for each cell, and one observed round.

One server, or several replicas. Lives as long as the path's worker; what samplers read is handed on when it ends.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.builds.tokenizer_process import ProcessTokenizer
from enginebench.errors import EnginebenchError
from enginebench.measure.server_sampler import PageSample, merged
from enginebench.measure.shards import Client, Shards
from enginebench.run.cell import CellRun
from enginebench.run.layer_sample import Sample, layers_of, not_observed, observe
from enginebench.run.server_numbers import CellNumbers, findings
from enginebench.run.server_watch import ServerWatch, watch_all
from enginebench.server.preflight import OUTPUT_TOKENS, Check, failures, preflight
from enginebench.server.replicas import check_replicas
from enginebench.server.tracing import Tracer

if TYPE_CHECKING:
    from enginebench.server.launch import TritonServer


@dataclass(slots=True)
class WatchedServers:
    """``options``: what the worker's session was opened with."""

    watches: Sequence[ServerWatch]
    worker: Client
    options: Mapping[str, Any]
    checks: list[Check] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        build: Build,
        worker: Client,
        options: Mapping[str, Any],
        server: "TritonServer | None",
        *,
        kv_cache_reuse: bool,
    ) -> "WatchedServers":
        """Watch the servers in ``options``; ``server``: the one that is ours, or None."""
        urls, model = options["urls"], str(options["model"])
        own = (ServerWatch(server.url, server.metrics_url, server.trace_file),) if server else ()
        watches = own or watch_all(urls)
        with ExitStack() as undo:
            for watch in watches:
                undo.callback(watch.stop)
            CellNumbers(watches, model).wait_idle()  # or the canary waits behind requests that nobody waits for
            checks = _checks(build, urls, model, kv_cache_reuse=kv_cache_reuse)
            undo.pop_all()
        return cls(watches, worker, options, checks)

    def facts(self) -> dict[str, Any]:
        """What a session of run.json keeps: ``preflight``, and ``metrics`` of each server."""
        return {
            "preflight": [check.as_json() for check in self.checks],
            "metrics": [watch.as_json() for watch in self.watches],
        }

    @property
    def tracer(self) -> Tracer | None:
        """What has Triton stamp every request; None: no server is ours."""
        return self.watches[0].tracer

    def kv_tokens(self) -> int | None:
        """What the engine's KV pool holds, where it tells; None: it does not, or there is more than one engine."""
        return self.watches[0].kv_tokens() if len(self.watches) == 1 else None

    def pages(self) -> list[PageSample]:
        """What was new on their metrics pages so far."""
        return merged([watch.sampler for watch in self.watches if watch.sampler is not None])

    def numbers(self) -> CellNumbers:
        """For the next cell, once the servers are idle."""
        numbers = CellNumbers(self.watches, str(self.options["model"]))
        numbers.wait_idle()
        return numbers

    def finish(self, cell_run: CellRun, layers: Mapping[str, Any] | None) -> dict[str, Any]:
        """After the measured rounds: the counters, one observed round, and the cell's ``server`` with ``findings``.

        ``layers``: what a round that was observed before showed; then there is no other.
        """
        numbers = cell_run.numbers
        assert numbers is not None
        numbers.end(cell_run.records)
        measured = [record for record in cell_run.records if not record.warmup]
        numbers.layers = layers or layers_of(self._sample(cell_run), measured, numbers)
        server = numbers.as_json(cell_run.records)
        return {**server, "findings": [*failures(self.checks), *findings(server)]}

    def close(self) -> list[PageSample]:
        """Read no page any more; what was read."""
        for watch in self.watches:
            watch.stop()
        return self.pages()

    def _sample(self, cell_run: CellRun) -> Sample:
        if isinstance(self.worker, Shards):
            return not_observed("a client of several processes is not observed")
        try:
            self.worker.open("triton_http", {**self.options, "perf_metrics": True})
            try:
                return observe(self.tracer, lambda: (cell_run.observed_round(), self.worker.observed))
            finally:
                self.worker.open("triton_http", self.options)
        except EnginebenchError as error:
            cell_run.check_alive()
            return not_observed(error)


def _checks(build: Build, urls: Sequence[str], model: str, *, kv_cache_reuse: bool) -> list[Check]:
    """A canary to each server and, of several, whether they are replicas."""
    limits = [build.limits.max_input_len, build.limits.max_seq_len and build.limits.max_seq_len - OUTPUT_TOKENS]
    longest = min((each for each in limits if each), default=None)
    with ExitStack() as stack:
        tokenizer = open_tokenizer(build)
        if isinstance(tokenizer, ProcessTokenizer):
            stack.callback(tokenizer.close)
        checks = [
            check
            for url in urls
            for check in preflight(url, model, tokenizer, longest_prompt=longest, kv_cache_reuse=kv_cache_reuse)
        ]
    return [*checks, check_replicas(urls, model)] if len(urls) > 1 else checks
