"""TensorRT-LLM's LLM API, 0.15 to 1.3rc: the engine backend, and from 1.0 on the PyTorch backend.

One event loop on one thread serves the session for its life, because results bind to the loop in which they were
asked for. Arrivals are stamped on that thread. Tensor-parallel workers are spawned by the library itself.
"""

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from enginebench.errors import LoadError, SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import JsonValue
from enginebench.runtimes.mailbox import Mailbox
from enginebench.runtimes.tensorrt_llm.configs import (
    BINDINGS,
    LLMAPI,
    config_class,
    kv_cache_config,
    require_told,
    scheduler_config,
)
from enginebench.runtimes.tensorrt_llm.library import accepted, find, has, one_line, supported
from enginebench.runtimes.tensorrt_llm.perf_metrics import timing
from enginebench.runtimes.tensorrt_llm.sampling import sampling_keywords
from enginebench.runtimes.tensorrt_llm.session import refusal
from enginebench.runtimes.tensorrt_llm.settings import Settings

NO_END = -1
"""An end id that no token has: what TensorRT-LLM's own benchmark uses for answers of exact length."""

START_TIMEOUT_S = 60.0
STATISTICS_TIMEOUT_S = 0.05  # the default blocks for two seconds
STATISTICS_MOST = 10_000


class LlmApi:
    """An ``Engine`` on ``LLM.generate_async``."""

    def __init__(self, settings: Settings, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._sampling_class = config_class("SamplingParams", "tensorrt_llm", LLMAPI)
        self._sampling_known = accepted(self._sampling_class)
        self._has_perf_metrics = settings.perf_metrics and _result_has_perf_metrics()
        llm_class = _llm_class(settings.kind)
        known = _argument_names(settings.kind)
        wanted = _arguments(settings, known)
        self._told = supported(known, wanted)
        require_told(settings, self._told, "enable_chunked_prefill")
        self._untold = sorted(name for name, value in wanted.items() if value is not None and name not in self._told)
        self._statistics = settings.iteration_statistics and _has_statistics(llm_class)
        self._llm = _loaded(llm_class, self._told)
        self._outputs: dict[int, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly
        self._timings: list[JsonValue] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm-api", daemon=True)
        self._thread.start()

    def start(self, requests: Sequence[tuple[int, Request]]) -> Sequence[int]:
        """Send from the loop's thread, and wait until all have left: their stamps are taken there."""
        prepared = [(key, request, list(request.prompt_ids), self._sampling(request)) for key, request in requests]
        return asyncio.run_coroutine_threadsafe(self._begin(prepared), self._loop).result(START_TIMEOUT_S)

    def cancel(self, key: int) -> None:
        """Abort, from 0.19 on; before, the answer is computed to its end."""
        self._loop.call_soon_threadsafe(self._abort, key)

    def facts(self) -> Mapping[str, JsonValue]:
        """What was told to the library, and what it could not be told."""
        return {
            "adapter": "llm_api",
            "llm_class": f"{type(self._llm).__module__}.{type(self._llm).__name__}",
            "told": {name: _plain(value) for name, value in self._told.items()},
            "not_settable": self._untold,
            "cancels": _aborts(),
            "streams": True,
            "takes_token_ids": True,
            "gives_token_ids": True,
            "detokenizes": False,
            "perf_metrics": self._has_perf_metrics,
            "iteration_statistics": self._statistics,
            "loads": ["batch", "concurrency", "rate"],
        }

    def observations(self) -> Mapping[str, JsonValue]:
        """Engine stamps of the requests that ended, and the statistics of every iteration since the last call."""
        timings, self._timings = self._timings, []
        return {"requests": timings, "iterations": self._iterations() if self._statistics else []}

    def close(self) -> None:
        """Stop the loop, then the library."""
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(timeout=START_TIMEOUT_S)
        shut_down = next(name for name in ("shutdown", "_shutdown") if has(self._llm, name))
        getattr(self._llm, shut_down)()
        if not self._loop.is_running():
            self._loop.close()

    async def _begin(self, prepared: Sequence[tuple[int, Request, list[int], Any]]) -> list[int]:
        sent_ns = []
        for key, request, ids, sampling in prepared:
            sent_ns.append(time.monotonic_ns())
            try:
                output = self._llm.generate_async(inputs=ids, sampling_params=sampling, streaming=request.streaming)
            except Exception as error:  # any refusal is the request's, not the session's
                self._fail(key, request, error)
                continue
            self._outputs[key] = output
            task = self._loop.create_task(self._follow(key, request, output))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return sent_ns

    async def _follow(self, key: int, request: Request, output: Any) -> None:
        try:
            if request.streaming:
                await self._stream(key, output)
            else:
                await output.aresult()
                self._mailbox.deliver(key, time.monotonic_ns(), tuple(output.outputs[0].token_ids), ended=True)
            self._note_timing(request, output)
        except Exception as error:  # raised by the library, for this request
            self._fail(key, request, error)
        finally:
            self._outputs.pop(key, None)
            self._mailbox.finish(key)

    async def _stream(self, key: int, output: Any) -> None:
        seen = 0
        async for step in output:
            stamp_ns = time.monotonic_ns()
            token_ids = step.outputs[0].token_ids  # of the whole answer so far: no step can be lost
            self._mailbox.deliver(key, stamp_ns, tuple(token_ids[seen:]), ended=bool(step.finished))
            seen = len(token_ids)

    def _sampling(self, request: Request) -> Any:
        wanted = {
            "max_tokens": request.output_tokens,
            "end_id": NO_END,
            "pad_id": NO_END,
            "ignore_eos": True,
            "detokenize": False,
            "return_perf_metrics": self._has_perf_metrics or None,
            **sampling_keywords(request.sampling, self._sampling_known),
        }
        return self._sampling_class(**supported(self._sampling_known, wanted))

    def _note_timing(self, request: Request, output: Any) -> None:
        if self._has_perf_metrics and (noted := timing(request.index, output.outputs[0].request_perf_metrics)):
            self._timings.append(noted)

    def _fail(self, key: int, request: Request, error: Exception) -> None:
        self._mailbox.deliver(key, time.monotonic_ns(), (), ended=True, error=refusal(request, one_line(error)))

    def _abort(self, key: int) -> None:
        output = self._outputs.get(key)
        if output is not None and has(output, "abort"):
            output.abort()

    def _stop(self) -> None:
        for key in list(self._outputs):
            self._abort(key)
        for task in self._tasks:
            task.cancel()
        self._loop.call_soon(self._loop.stop)  # after the cancelled tasks had their turn

    def _iterations(self) -> list[JsonValue]:
        if has(self._llm, "get_stats"):
            return list(self._llm.get_stats(timeout=STATISTICS_TIMEOUT_S))
        found: list[JsonValue] = []
        with suppress(Exception):  # it says with one that there are no more
            while len(found) < STATISTICS_MOST:
                found.append(json.loads(self._llm._get_stats(timeout=STATISTICS_TIMEOUT_S)))
        return found


def _llm_class(kind: str) -> Any:
    if kind == "pytorch":
        return find("tensorrt_llm.LLM")
    return find("tensorrt_llm._tensorrt_engine.LLM", "tensorrt_llm.LLM")


def _argument_names(kind: str) -> frozenset[str]:
    own = "TorchLlmArgs" if kind == "pytorch" else "TrtLlmArgs"
    arguments = find(f"{LLMAPI}.llm_args.{own}", f"{LLMAPI}.llm_args.LlmArgs", f"{LLMAPI}.llm_utils.LlmArgs")
    if arguments is None:
        raise SessionError(
            "The installed tensorrt_llm does not say which arguments its LLM takes: run enginebench doctor."
        )
    return accepted(arguments)


def _arguments(settings: Settings, known: frozenset[str]) -> dict[str, Any]:
    pytorch = settings.kind == "pytorch"
    if unknown := sorted(set(settings.llm_args) - known):
        raise SessionError(
            f"The checkpoint's LLM argument {unknown[0]!r} is unknown to the installed tensorrt_llm: remove it."
        )
    own = {name: value for name, value in settings.llm_args.items() if name != "kv_cache_config"}
    return {
        "model": str(settings.directory),
        "skip_tokenizer_init": True,  # ids go in, ids come out
        "trust_remote_code": settings.trust_remote_code or None,
        "tensor_parallel_size": settings.tp,
        "pipeline_parallel_size": settings.pp,
        "context_parallel_size": settings.cp if settings.cp > 1 else None,
        "kv_cache_config": kv_cache_config(settings, LLMAPI, BINDINGS),
        "scheduler_config": scheduler_config(settings, LLMAPI, BINDINGS),
        "enable_chunked_prefill": settings.chunked_context,
        "max_batch_size": settings.max_batch_size,
        "max_num_tokens": settings.max_num_tokens,
        "max_input_len": settings.max_input_len if pytorch else None,  # an engine brings its own
        "max_seq_len": settings.max_seq_len if pytorch else None,
        **own,
    }


def _loaded(llm_class: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return llm_class(**arguments)
    except Exception as error:  # whatever the library raises, nothing can be run
        raise LoadError(f"TensorRT-LLM could not load {arguments['model']} ({one_line(error)}).") from error


def _result_has_perf_metrics() -> bool:
    output = find("tensorrt_llm.executor.CompletionOutput", f"{LLMAPI}.CompletionOutput")
    return output is not None and (has(output, "request_perf_metrics") or "request_perf_metrics" in accepted(output))


def _has_statistics(llm_class: Any) -> bool:
    return has(llm_class, "get_stats") or has(llm_class, "_get_stats")


def _aborts() -> bool:
    output = find(f"{LLMAPI}.llm.RequestOutput", f"{LLMAPI}.RequestOutput")
    return output is not None and has(output, "abort")


def _plain(value: Any) -> JsonValue:
    return value if isinstance(value, (bool, int, float, str)) else " ".join(str(value).split())
