"""TensorRT-LLM's Executor bindings, 0.9 to 1.3rc: the in-flight batcher itself, with one thread that awaits answers.

An engine for several GPUs needs this process started once a rank (mpirun); rank 0 drives, the others serve in
``follow``. Request errors arrive as responses or are raised when a request is queued: both are the request's.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from enginebench.errors import LoadError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import JsonValue
from enginebench.runtimes.mailbox import Mailbox
from enginebench.runtimes.tensorrt_llm.configs import (
    BINDINGS,
    config_class,
    kv_cache_config,
    require_told,
    scheduler_config,
)
from enginebench.runtimes.tensorrt_llm.library import accepted, has, one_line, supported
from enginebench.runtimes.tensorrt_llm.perf_metrics import timing
from enginebench.runtimes.tensorrt_llm.sampling import sampling_keywords
from enginebench.runtimes.tensorrt_llm.session import refusal
from enginebench.runtimes.tensorrt_llm.settings import Settings

NO_END = -1  # an end id that no token has
AWAIT = timedelta(milliseconds=50)  # how late the thread notices that it should end
THREAD_TIMEOUT_S = 30.0


class ExecutorApi:
    """An ``Engine`` on ``enqueue_request`` and ``await_responses``."""

    def __init__(self, settings: Settings, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._classes = {name: config_class(name, BINDINGS) for name in ("Request", "SamplingConfig", "OutputConfig")}
        self._known = {name: accepted(kind) for name, kind in self._classes.items()}
        self._perf_metrics = settings.perf_metrics and "return_perf_metrics" in self._known["OutputConfig"]
        self._told: dict[str, Any] = {}
        self._executor = self._loaded(settings)
        self._changed = threading.Condition()
        self._under_way: dict[int, tuple[int, Request]] = {}  # the executor's id → key, request
        self._timings: list[JsonValue] = []
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="executor", daemon=True)
        self._thread.start()

    def start(self, requests: Sequence[tuple[int, Request]]) -> Sequence[int]:
        """Queue one by one, so that one refusal leaves the others alone."""
        prepared = [(key, request, self._request(request)) for key, request in requests]
        with self._changed:  # an answer may come before its id is known here
            stamps = [self._enqueue(key, request, asked) for key, request, asked in prepared]
            self._changed.notify_all()
        return stamps

    def cancel(self, key: int) -> None:
        """Ask the batcher to drop a request; its last response says that it did."""
        with self._changed:
            ids = [executor_id for executor_id, (other, _) in self._under_way.items() if other == key]
        for executor_id in ids:
            self._executor.cancel_request(id=executor_id)

    def facts(self) -> Mapping[str, JsonValue]:
        """What was told to the library."""
        return {
            "adapter": "executor",
            "told": {name: " ".join(str(value).split()) for name, value in self._told.items()},
            "cancels": True,
            "streams": True,
            "takes_token_ids": True,
            "gives_token_ids": True,
            "detokenizes": False,
            "perf_metrics": self._perf_metrics,
            "loads": ["batch", "concurrency", "rate"],
        }

    def observations(self) -> Mapping[str, JsonValue]:
        """Engine stamps of the requests that ended, and the statistics of the latest iterations."""
        timings, self._timings = self._timings, []
        statistics = self._executor.get_latest_iteration_stats()
        return {
            "requests": timings,
            "iterations": [json.loads(each.to_json_str()) for each in statistics if has(each, "to_json_str")],
        }

    def close(self) -> None:
        """Stop listening, then the batcher (on every rank)."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(THREAD_TIMEOUT_S)
        self._executor.shutdown()

    def _loaded(self, settings: Settings) -> Any:
        config_kind = config_class("ExecutorConfig", BINDINGS)
        wanted = {
            "max_beam_width": 1,
            "kv_cache_config": kv_cache_config(settings, BINDINGS),
            "scheduler_config": scheduler_config(settings, BINDINGS),
            "enable_chunked_context": settings.chunked_context,
            "max_batch_size": settings.max_batch_size,
            "max_num_tokens": settings.max_num_tokens,
        }
        self._told = supported(accepted(config_kind), wanted)
        require_told(settings, self._told, "enable_chunked_context")
        model_type = config_class("ModelType", BINDINGS).DECODER_ONLY
        try:
            return config_class("Executor", BINDINGS)(
                model_path=settings.directory, model_type=model_type, executor_config=config_kind(**self._told)
            )
        except Exception as error:  # whatever the library raises, nothing can be run
            raise LoadError(f"TensorRT-LLM could not load {settings.directory} ({one_line(error)}).") from error

    def _request(self, request: Request) -> Any:
        sampling = sampling_keywords(request.sampling, self._known["SamplingConfig"])
        output = {"exclude_input_from_output": True, "return_perf_metrics": self._perf_metrics or None}
        length = "max_tokens" if "max_tokens" in self._known["Request"] else "max_new_tokens"
        return self._classes["Request"](
            input_token_ids=list(request.prompt_ids),
            streaming=request.streaming,
            sampling_config=self._classes["SamplingConfig"](**sampling),
            output_config=self._classes["OutputConfig"](**supported(self._known["OutputConfig"], output)),
            end_id=NO_END,
            pad_id=NO_END,
            **{length: request.output_tokens},
        )

    def _enqueue(self, key: int, request: Request, asked: Any) -> int:
        sent_ns = time.monotonic_ns()
        try:
            self._under_way[self._executor.enqueue_request(request=asked)] = (key, request)
        except Exception as error:  # any refusal is the request's, not the session's
            self._fail(key, request, one_line(error), time.monotonic_ns())
        return sent_ns

    def _receive(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._under_way or self._closing)
                if self._closing:
                    return
            try:
                responses = self._executor.await_responses(timeout=AWAIT)
            except Exception as error:  # the batcher broke: nothing that is under way will end
                self._break(one_line(error))
                return
            stamp_ns = time.monotonic_ns()
            with self._changed:
                for response in responses:
                    self._take(response, stamp_ns)

    def _take(self, response: Any, stamp_ns: int) -> None:
        executor_id = response.request_id
        if executor_id not in self._under_way:
            return
        key, request = self._under_way[executor_id]
        if response.has_error():
            del self._under_way[executor_id]
            self._fail(key, request, " ".join(response.error_msg.split()), stamp_ns)
            return
        result = response.result
        self._mailbox.deliver(key, stamp_ns, tuple(result.output_token_ids[0]), ended=bool(result.is_final))
        if result.is_final:
            del self._under_way[executor_id]
            self._note_timing(request, result)

    def _note_timing(self, request: Request, result: Any) -> None:
        if self._perf_metrics and (noted := timing(request.index, result.request_perf_metrics)):
            self._timings.append(noted)

    def _fail(self, key: int, request: Request, why: str, stamp_ns: int) -> None:
        self._mailbox.deliver(key, stamp_ns, (), ended=True, error=refusal(request, why))

    def _break(self, why: str) -> None:
        stamp_ns = time.monotonic_ns()
        with self._changed:
            under_way, self._under_way = self._under_way, {}
        for key, request in under_way.values():
            self._fail(key, request, why, stamp_ns)
