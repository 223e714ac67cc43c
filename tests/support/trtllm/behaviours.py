"""What the classes of the stand-in do, as far as an adapter can tell. Signatures come from elsewhere (``strict``)."""

import asyncio
import importlib
import json
import queue
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import compute
from .strict import Strict, violation

NO_STATISTICS_S = 0.001


def need(condition: bool, text: str) -> None:
    """A use that the library would not survive."""
    if not condition:
        raise TypeError(violation(text))


class SamplingParams(Strict):
    """Checks what the library checks when it has no tokenizer."""

    def _ready(self) -> None:
        if "end_id" in self._spec["attributes"]:
            need(self.end_id is not None, "SamplingParams needs end_id where there is no tokenizer")
        need(self.top_k != 0 or self.top_p == 1.0, "top_k 0 without top_p 1 means greedy")
        need(self.temperature != 0, "a temperature of 0 is refused by some versions")


class CompletionOutput(Strict):
    """Cumulative ids, and the difference that the last step made."""

    def _get_token_ids_diff(self) -> list[int]:
        return self.__dict__["=token_ids"][self.__dict__["_last"] :]  # type: ignore[no-any-return]

    def _get_length(self) -> int:
        return len(self.__dict__["=token_ids"])


class RequestOutput(Strict):
    """One object, mutated by whoever iterates; async only where it was made inside a running loop."""

    def _get_finished(self) -> bool:
        return bool(self.__dict__["_done"])

    def _begin(self) -> None:
        self._done = False
        self._thread_queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            self._loop: Any = asyncio.get_running_loop()
            self._async_queue: Any = asyncio.Queue()
        except RuntimeError:
            self._loop = self._async_queue = None

    def _put(self, event: Any) -> None:
        if self._loop is None:
            self._thread_queue.put(event)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._async_queue.put_nowait, event)

    def _apply(self, event: Any) -> None:
        ids, last, error = event
        if error:
            self._done = True
            raise RuntimeError(error)
        output = self.__dict__["=outputs"][0]
        output._last = len(output.token_ids)
        output.token_ids.extend(ids)
        self._done = last

    def __aiter__(self) -> "RequestOutput":
        return self

    async def __anext__(self) -> "RequestOutput":
        assert self._async_queue is not None, violation("async iteration of a result made outside a loop")
        if self._done:
            raise StopAsyncIteration
        self._apply(await self._async_queue.get())
        return self

    async def _do_aresult(self) -> "RequestOutput":
        async for _ in self:
            pass
        return self

    def _do_result(self, timeout: float | None) -> "RequestOutput":
        while not self._done:
            self._apply(self._thread_queue.get(timeout=timeout))
        return self

    def _do_abort(self) -> None:
        self._engine.cancel(self._id)

    def _do_cancel(self) -> None:
        raise NotImplementedError(violation("RequestOutput.cancel() is not implemented in the library"))


class LLM(Strict):
    """Token ids in, results out; ``_world`` holds the classes of the same version."""

    def _ready(self) -> None:
        values = {name[1:]: value for name, value in self.__dict__.items() if name.startswith("=")}
        need(values["skip_tokenizer_init"] is True, "token ids need skip_tokenizer_init")
        for name in ("kv_cache_config", "scheduler_config"):
            fits = type(values[name]).__name__ in ("KvCacheConfig", "SchedulerConfig")
            need(fits and isinstance(values[name], Strict), f"{name} is of a foreign class")
        if not Path(values["model"]).is_dir():
            raise RuntimeError(f"model {values['model']} does not exist")
        self._engine = compute.Engine(values["model"])
        self._seen = 0

    def _do_generate_async(self, inputs: Any, sampling_params: Any, streaming: bool, **_: Any) -> Any:
        need(isinstance(inputs, list) and all(type(each) is int for each in inputs), "inputs must be a list of ints")
        need(isinstance(sampling_params, self._world["SamplingParams"]), "sampling_params is of a foreign class")
        need(sampling_params.detokenize is False and sampling_params.ignore_eos is True, "timed code detokenises")
        tokens = sampling_params.max_tokens
        compute.check_length(inputs, tokens)
        completion = self._world["CompletionOutput"]._made(index=0, token_ids=[])
        completion._last = 0
        output = self._world["RequestOutput"]._made(prompt_token_ids=inputs, outputs=[completion])
        output._engine = self._engine
        output._begin()
        seed = None if sampling_params.top_k == 1 else sampling_params.seed
        started_s = time.monotonic()

        def on_tokens(ids: Any, last: bool, error: str | None) -> None:
            if last and all("perf_metrics" in " ".join(dir(each)) for each in (sampling_params, completion)):
                completion.request_perf_metrics = perf_metrics(self._world, started_s)
            output._put((list(ids), last, error))

        output._id = self._engine.add(inputs, compute.answer(inputs, tokens, seed), streaming, on_tokens)
        return output

    def _do_get_stats(self, timeout: float | None) -> Any:
        need(timeout is not None and timeout < 1, "statistics with the default time-out block for seconds")
        new = self._engine.iterations[self._seen :]
        self._seen += len(new)
        if "get_stats" in self._spec["methods"]:
            return new
        if not new:
            raise RuntimeError("no stats available")
        self._seen -= len(new) - 1
        return json.dumps(new[0])

    def _do_shutdown(self) -> None:
        self._engine.close()


class _TorchLLM(LLM):
    """What the PyTorch backend's LLM derives from, by its name."""


class _TrtLLM(LLM):
    """What the engine backend's LLM derives from, by its name."""


def perf_metrics(world: Any, started_s: float) -> Any:
    """Engine stamps on a steady clock, as ``timedelta``."""
    stamps = {"arrival_time": 0.0, "first_scheduled_time": 0.0005, "first_token_time": 0.001}
    stamps["last_token_time"] = max(0.001, time.monotonic() - started_s)
    timing = world["executor.TimingMetrics"]._made(
        **{name: timedelta(seconds=started_s + offset_s) for name, offset_s in stamps.items()}
    )
    return world["executor.RequestPerfMetrics"]._made(timing_metrics=timing)


class Request(Strict):
    """Checks types as the bindings do."""

    def _ready(self) -> None:
        need(isinstance(self.input_token_ids, list), "input_token_ids must be a list")
        need(self.end_id == -1, "an answer of exact length needs end_id -1")
        need(self.output_config.exclude_input_from_output is True, "the prompt would be counted")


class SamplingConfig(Strict):
    """Checks what the bindings refuse."""

    def _ready(self) -> None:
        need(self.temperature != 0, "a temperature of 0 is refused by some versions")
        need(self.top_k != 0 or self.top_p == 1.0, "top_k 0 without top_p 1 means greedy")


class Executor(Strict):
    """Queues requests and hands out responses."""

    def _ready(self) -> None:
        values = {name[1:]: value for name, value in self.__dict__.items() if name.startswith("=")}
        need(isinstance(values["model_path"], Path), "model_path must be a path")
        need(isinstance(values["executor_config"], self._world["executor.ExecutorConfig"]), "a foreign executor_config")
        if not values["model_path"].is_dir():
            raise RuntimeError(f"[TensorRT-LLM][ERROR] cannot read {values['model_path']}")
        self._engine = compute.Engine(values["model_path"])
        self._responses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._seen = 0

    def _do_enqueue_request(self, request: Any) -> int:
        need(isinstance(request, self._world["executor.Request"]), "request is of a foreign class")
        limit = "max_tokens" if "max_tokens" in dir(request) else "max_new_tokens"
        tokens, prompt, sampling = getattr(request, limit), request.input_token_ids, request.sampling_config
        compute.check_length(prompt, tokens)
        seed = None if sampling.top_k == 1 else getattr(sampling, "seed" if "seed" in dir(sampling) else "random_seed")
        started_s, holder = time.monotonic(), SimpleNamespace(id=None)

        def on_tokens(ids: Any, last: bool, error: str | None) -> None:
            self._responses.put((holder, request, list(ids), last, error, started_s))

        holder.id = self._engine.add(prompt, compute.answer(prompt, tokens, seed), request.streaming, on_tokens)
        return int(holder.id)

    def _do_enqueue_requests(self, requests: Any) -> list[int]:
        return [self._do_enqueue_request(request) for request in requests]

    def _do_await_responses(self, timeout: Any, **_: Any) -> list[Any]:
        need(isinstance(timeout, timedelta), "timeout must be a timedelta")
        found = []
        try:
            found.append(self._responses.get(timeout=timeout.total_seconds()))
            while True:
                found.append(self._responses.get_nowait())
        except queue.Empty:
            return [self._response(*each) for each in found]

    def _response(self, holder: Any, request: Any, ids: Any, last: bool, error: str | None, started_s: float) -> Any:
        result = self._world["executor.Result"]._made(is_final=last, output_token_ids=[ids])
        if last and "return_perf_metrics" in dir(request.output_config) and request.output_config.return_perf_metrics:
            result.request_perf_metrics = perf_metrics(self._world, started_s)
        return self._world["executor.Response"]._made(request_id=holder.id, result=result, error_msg=error)

    def _do_cancel_request(self, id: int) -> None:  # noqa: A002 - the library's name
        self._engine.cancel(id)

    def _do_get_latest_iteration_stats(self) -> list[Any]:
        new = self._engine.iterations[self._seen :]
        self._seen += len(new)
        kind = self._world.get("executor.IterationStats")
        return [kind._made(iter=each["iter"]) for each in new] if kind else []

    def _do_shutdown(self) -> None:
        self._engine.close()


class IterationStats(Strict):
    """One step."""

    def _do_to_json_str(self) -> str:
        return json.dumps({"iter": self.__dict__["=iter"]})


class Response(Strict):
    """An error or a result."""

    def _do_has_error(self) -> bool:
        return self.__dict__["=error_msg"] is not None


class GenerationSession(Strict):
    """Decodes a static batch, and tells a profiler when its first and its last token are there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "decode":  # an object of Python's: whoever wraps a method that there is may do so
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _do_decode(self, input_ids: Any, sampling_config: Any, streaming: bool = False, **kwargs: Any) -> Any:
        profiler = kwargs.get("benchmark_profiler")
        steps = self._steps(input_ids, sampling_config, profiler)
        return steps if streaming else list(steps)[-1]

    def _steps(self, prompts: list[list[int]], config: Any, profiler: Any) -> Iterator[Any]:
        from .torch import Tensor

        ranks = compute.ranks()
        need(ranks is None or len({str(each) for each in ranks.allgather(prompts)}) == 1, "ranks run different batches")
        tokens = config.max_new_tokens
        seed = None if config.top_k == 1 else config.random_seed
        answers = [compute.answer(prompt, tokens, seed) for prompt in prompts]
        width = max(map(len, prompts)) + tokens
        for step in range(1, tokens + 1):
            time.sleep(compute.STEP_S / 2)
            if step > 1 and any(prompt[0] == compute.BREAKS for prompt in prompts):
                raise RuntimeError("CUDA error: an illegal memory\naccess was encountered")
            if profiler is not None and step == 1:
                assert profiler.is_recording_perf_profile is False
                profiler.record_cuda_event("first_token")
            rows = [[*prompt, *answer[:step]] for prompt, answer in zip(prompts, answers, strict=True)]
            if ranks is not None:
                ranks.barrier()  # the ranks of an engine exchange activations in every step
            yield None if ranks and ranks.Get_rank() else Tensor([[row + [-1] * (width - len(row))] for row in rows])
        if profiler is not None:
            profiler.record_cuda_event("last_token")
            profiler.record_elapsed_time("first_token", "last_token", "generation_time")
            profiler.add_aux_info("generation_step_count", tokens - 1)


class ModelRunner(Strict):
    """Static batches; answers repeat the prompt and are padded."""

    @classmethod
    def _do_from_dir(cls, engine_dir: Any, **_: Any) -> Any:
        need(isinstance(engine_dir, str), "engine_dir must be a string")
        if not Path(engine_dir).is_dir():
            raise RuntimeError(f"{engine_dir}/config.json does not exist")
        compute.mishap(engine_dir, "load")
        importlib.import_module("torch").cuda.used += 12 * 2**30
        made = cls._made(**cls._inside())
        made._directory = engine_dir
        return made

    @classmethod
    def _inside(cls) -> dict[str, Any]:
        return {"session": cls._world["GenerationSession"]._made()}

    def _do_generate(self, batch_input_ids: Any, sampling_config: Any, streaming: bool = False, **_: Any) -> Any:
        prompts = [each.tolist() for each in batch_input_ids]
        need(all(each.dtype == "int32" for each in batch_input_ids), "prompts must be int32")
        need(isinstance(sampling_config, self._world["runtime.SamplingConfig"]), "a foreign sampling_config")
        for prompt in prompts:
            compute.check_length(prompt, sampling_config.max_new_tokens)
        compute.mishap(self._directory, "round")
        return self._decoded(prompts, sampling_config, streaming)

    def _decoded(self, prompts: list[list[int]], config: Any, streaming: bool) -> Any:
        lengths = [len(prompt) for prompt in prompts]
        return self.session.decode(
            input_ids=prompts, context_lengths=lengths, sampling_config=config, streaming=streaming
        )


class ModelRunnerCpp(ModelRunner):
    """The C++ session: whole answers only."""

    @classmethod
    def _inside(cls) -> dict[str, Any]:
        return {}

    def _decoded(self, prompts: list[list[int]], config: Any, streaming: bool) -> Any:
        if streaming:
            raise RuntimeError(violation("Streaming is not supported in C++ session."))
        return list(GenerationSession._steps(self, prompts, config, None))[-1]  # type: ignore[arg-type]


BEHAVIOURS: dict[str, tuple[type, ...]] = {
    "LLM": (LLM,),
    "LLM(PyTorch)": (_TorchLLM,),
    "LLM(engine)": (_TrtLLM,),
    "SamplingParams": (SamplingParams,),
    "RequestOutput": (RequestOutput,),
    "CompletionOutput": (CompletionOutput,),
    "executor.Request": (Request,),
    "executor.SamplingConfig": (SamplingConfig,),
    "executor.Executor": (Executor,),
    "executor.Response": (Response,),
    "executor.IterationStats": (IterationStats,),
    "ModelRunner": (ModelRunner,),
    "ModelRunnerCpp": (ModelRunnerCpp,),
    "GenerationSession": (GenerationSession,),
}
