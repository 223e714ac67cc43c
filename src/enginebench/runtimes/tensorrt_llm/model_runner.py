"""TensorRT-LLM's ModelRunner: static batches, for engines that nothing newer loads or that cannot batch in flight.

A release is a batch: all its requests start together, and the batch ends with its longest answer. Versions with
streaming (from 0.7 on) give one token a step to every request; 0.6 gives all at the end, and refuses to stream. Where
an answer comes in one piece, the version may tell when its first token was there (``first_token``). Nothing can be
cancelled: a batch runs to its end. An engine for several GPUs is run by as many ranks, each with a session of its own:
rank 0 takes requests, the others run what it runs.
"""

import importlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeAlias

from enginebench.errors import LoadError, SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import JsonValue
from enginebench.runtimes.mailbox import Mailbox
from enginebench.runtimes.tensorrt_llm.all_ranks import AllRanks
from enginebench.runtimes.tensorrt_llm.configs import config_class
from enginebench.runtimes.tensorrt_llm.first_token import FirstToken, profiled, takes_profiler
from enginebench.runtimes.tensorrt_llm.library import accepted, named, one_line, supported
from enginebench.runtimes.tensorrt_llm.sampling import sampling_keywords
from enginebench.runtimes.tensorrt_llm.session import refusal
from enginebench.runtimes.tensorrt_llm.settings import Settings

RUNTIME = "tensorrt_llm.runtime"
NO_END = -1  # an end id that no token has
PAD = 0  # prompts of a batch are padded with it: it must be a token
THREAD_TIMEOUT_S = 30.0

Batch: TypeAlias = Sequence[tuple[int, Request]]


class ModelRunnerApi:
    """An ``Engine`` on ``ModelRunner.generate``, on a thread of its own."""

    name = "model_runner"
    runner = "ModelRunner"

    def __init__(self, settings: Settings, mailbox: Mailbox) -> None:
        self._settings = settings
        self._mailbox = mailbox
        self._torch: Any = importlib.import_module("torch")
        self._sampling_class = config_class("SamplingConfig", RUNTIME)
        self._ranks = AllRanks() if settings.world_size > 1 else None
        self._leads = self._ranks is None or self._ranks.rank == 0
        self._used_with_context = None if self._ranks else self._used_bytes()  # before anything is loaded
        self._runner = self._loaded()
        self._device = self._torch.cuda.current_device()  # of this thread, chosen by the library; others start with 0
        self._streams = self._can_stream()
        self._profiles = settings.perf_metrics and self._can_profile()
        self._timings: list[JsonValue] = []
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="model-runner", daemon=True)
        self._thread.start()

    def start(self, requests: Batch) -> Sequence[int]:
        """Hand the release over as batches that the engine can hold."""
        sent_ns = [time.monotonic_ns()] * len(requests)
        fitting = [entry for entry in requests if not self._refuse(*entry)]
        size = self._settings.max_batch_size or len(requests)
        for first in range(0, len(fitting), size):
            self._batches.put(fitting[first : first + size])
        return sent_ns

    def cancel(self, key: int) -> None:
        """A static batch cannot lose a request: it runs to its end."""

    def facts(self) -> Mapping[str, JsonValue]:
        """What this generation can do."""
        return {
            "adapter": self.name,
            "not_settable": ["kv_cache_config", "scheduler_config", "chunked_context"],
            "cancels": False,
            "streams": self._streams,
            "takes_token_ids": True,
            "gives_token_ids": True,
            "detokenizes": False,
            "perf_metrics": self._profiles,
            "loads": ["batch"],
            "used_with_context_bytes": self._used_with_context,
        }

    def observations(self) -> Mapping[str, JsonValue]:
        """Seconds from the start of a batch to its first and last token, where it came in one piece."""
        timings, self._timings = self._timings, []
        return {"requests": timings, "iterations": []}

    def close(self) -> None:
        """Leave the batch at hand after its next step; on several ranks, when it ends, and there when rank 0 closes."""
        if not self._leads:
            self._thread.join()
            return
        self._closing = True
        self._batches.put(None)
        self._thread.join(THREAD_TIMEOUT_S)

    def _used_bytes(self) -> list[JsonValue]:
        """What the GPU has in use with the context of this process, which the library loads the engine into."""
        free, total = self._torch.cuda.mem_get_info()
        return [int(total - free)]

    def _loaded(self) -> Any:
        self._refuse_settings()
        runner_class = config_class(self.runner, RUNTIME)
        try:
            return runner_class.from_dir(
                engine_dir=str(self._settings.directory), rank=self._ranks.rank if self._ranks else 0
            )
        except Exception as error:  # whatever the library raises, nothing can be run
            raise LoadError(f"TensorRT-LLM could not load {self._settings.directory} ({one_line(error)}).") from error

    def _refuse_settings(self) -> None:
        asked = {
            "kv_cache_reuse": self._settings.kv_cache_reuse,
            "kv_cache_tokens": self._settings.kv_cache_tokens is not None,
            "chunked_context": self._settings.chunked_context,
        }
        if refused := [name for name, wanted in asked.items() if wanted]:
            raise SessionError(f"{self.runner} runs whole batches and cannot be told {refused[0]}: leave it out.")

    def _can_stream(self) -> bool:
        return "streaming" in named(self._runner.generate)

    def _can_profile(self) -> bool:
        return self._streams and takes_profiler(self._runner.session)

    def _refuse(self, key: int, request: Request) -> bool:
        """One request that does not fit would fail the batch."""
        limit, asked = self._settings.max_seq_len, len(request.prompt_ids) + request.output_tokens
        why = ""
        if limit is not None and asked > limit:
            why = f"that exceeds the engine's max_seq_len {limit}"
        elif request.streaming and not self._streams:
            why = "this version has no streaming"
        if why:
            self._mailbox.deliver(key, time.monotonic_ns(), (), ended=True, error=refusal(request, why))
        return bool(why)

    def _work(self) -> None:
        self._torch.cuda.set_device(self._device)
        while (batch := self._next()) is not None:
            self._answer(batch)

    def _next(self) -> Batch | None:
        """The next batch, the same on every rank; None at the end."""
        batch = self._batches.get() if self._leads else None
        batch = None if self._closing else batch
        return self._ranks.share(batch) if self._ranks else batch

    def _answer(self, batch: Batch) -> None:
        try:
            self._run(batch)
        except Exception as error:  # raised by the library, for the whole batch
            for key, request in batch:
                why = refusal(request, one_line(error))
                self._mailbox.deliver(key, time.monotonic_ns(), (), ended=True, error=why)

    def _run(self, batch: Batch) -> None:
        inputs = [self._torch.tensor(list(request.prompt_ids), dtype=self._torch.int32) for _, request in batch]
        config = self._sampling(batch)
        if any(request.streaming for _, request in batch):
            steps = self._runner.generate(batch_input_ids=inputs, sampling_config=config, streaming=True)
            self._deliver_steps(batch, steps)
        elif not self._leads:
            self._runner.generate(batch_input_ids=inputs, sampling_config=config)
        else:
            self._run_in_one_piece(batch, inputs, config)

    def _run_in_one_piece(self, batch: Batch, inputs: Sequence[Any], config: Any) -> None:
        profiler = FirstToken(self._torch) if self._profiles else None
        with profiled(self._runner.session, profiler) if profiler else nullcontext():
            outputs = self._runner.generate(batch_input_ids=inputs, sampling_config=config)
        self._torch.cuda.synchronize()  # the call comes back before the GPU is done
        stamp_ns = time.monotonic_ns()
        if profiler and (timing := profiler.timing()):
            self._timings += [{"request": request.index, **timing} for _, request in batch]
        self._deliver_all(batch, outputs, stamp_ns)

    def _deliver_steps(self, batch: Batch, steps: Iterator[Any]) -> None:
        for step, outputs in enumerate(steps):
            if not self._leads:  # takes part in the step, and has no outputs of it
                continue
            self._torch.cuda.synchronize()
            stamp_ns = time.monotonic_ns()
            for row, (key, request) in enumerate(batch):
                if step < request.output_tokens:
                    token_id = int(outputs[row][0][len(request.prompt_ids) + step])
                    self._mailbox.deliver(key, stamp_ns, (token_id,), ended=step + 1 == request.output_tokens)
            if self._closing and not self._ranks:  # the other ranks would wait for this one
                return

    def _deliver_all(self, batch: Batch, outputs: Any, stamp_ns: int) -> None:
        for row, (key, request) in enumerate(batch):
            first = len(request.prompt_ids)  # outputs repeat the prompt
            ids = outputs[row][0][first : first + request.output_tokens].tolist()
            self._mailbox.deliver(key, stamp_ns, tuple(ids), ended=True)

    def _sampling(self, batch: Batch) -> Any:
        """One for the batch: its requests share their scenario's sampling, and its longest answer sets the length."""
        if len({request.sampling for _, request in batch}) > 1:
            raise SessionError("the requests of a static batch must share their sampling")
        known = accepted(self._sampling_class)
        wanted = sampling_keywords(batch[0][1].sampling, known)
        seed = wanted.pop("random_seed", None)  # a field that the constructor does not take
        longest = max(request.output_tokens for _, request in batch)
        config = self._sampling_class(end_id=NO_END, pad_id=PAD, max_new_tokens=longest, **supported(known, wanted))
        if seed is not None:
            config.random_seed = seed
        return config
