"""The Triton server behind the path at hand, watched: preflight, its numbers for each cell, and one observed round.

Lives as long as the path's worker; what its sampler read is handed on when it ends.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.builds.tokenizer_process import ProcessTokenizer
from enginebench.errors import EnginebenchError
from enginebench.measure.server_sampler import PageSample
from enginebench.measure.shards import Client, Shards
from enginebench.run.cell import CellRun
from enginebench.run.layer_sample import Sample, layers_of, not_observed, observe
from enginebench.run.server_numbers import CellNumbers, ServerWatch, failed_checks
from enginebench.server.preflight import OUTPUT_TOKENS, Check, preflight

if TYPE_CHECKING:
    from enginebench.server.launch import TritonServer


@dataclass(slots=True)
class WatchedServer:
    """``options``: what the worker's session was opened with."""

    watch: ServerWatch
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
    ) -> "WatchedServer":
        """Watch the server in ``options``; ``server``: the one that is ours, or None."""
        url = str(options["url"])
        limits = [build.limits.max_input_len, build.limits.max_seq_len and build.limits.max_seq_len - OUTPUT_TOKENS]
        longest = min((each for each in limits if each), default=None)
        with ExitStack() as stack:
            tokenizer = open_tokenizer(build)
            if isinstance(tokenizer, ProcessTokenizer):
                stack.callback(tokenizer.close)
            model = str(options["model"])
            checks = preflight(url, model, tokenizer, longest_prompt=longest, kv_cache_reuse=kv_cache_reuse)
        watch = ServerWatch(url, server.metrics_url, server.trace_file) if server else ServerWatch(url)
        return cls(watch, worker, options, checks)

    def facts(self) -> dict[str, Any]:
        """What a session of run.json keeps: ``preflight`` and ``metrics``."""
        return {"preflight": [check.as_json() for check in self.checks], "metrics": self.watch.as_json()}

    def numbers(self) -> CellNumbers:
        """For the next cell, once the server is idle."""
        numbers = CellNumbers(self.watch, str(self.options["model"]))
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
        checks = failed_checks([check.as_json() for check in self.checks])
        return {**server, "findings": [*checks, *numbers.findings(server)]}

    def close(self) -> list[PageSample]:
        """Read no page any more; what was read."""
        self.watch.stop()
        return self.watch.sampler.samples() if self.watch.sampler else []

    def _sample(self, cell_run: CellRun) -> Sample:
        if isinstance(self.worker, Shards):
            return not_observed("a client of several processes is not observed")
        try:
            self.worker.open("triton_http", {**self.options, "perf_metrics": True})
            try:
                return observe(self.watch, lambda: (cell_run.observed_round(), self.worker.observed))
            finally:
                self.worker.open("triton_http", self.options)
        except EnginebenchError as error:
            cell_run.check_alive()
            return not_observed(error)
