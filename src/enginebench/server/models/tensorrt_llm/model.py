"""Triton's ``tensorrt_llm``: the core, here the reference engine with its in-flight batcher. Token ids in and out.

Three threads: the batcher's own, which only hands over what a step gave; one that sends responses, since a send waits
for the server; one that now and then shows what the engine does and asks whether a client has gone, since telling and
asking wait for the server too. The parameter ``delay_ms`` holds requests back before the engine schedules them, so that
tests know where time goes.
"""

import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginebench.plan.requests import Sampling
from enginebench.reference.batcher import Batcher, TokenEvent
from enginebench.reference.engine import load_engine
from enginebench.reference.tokenizer import FIRST_CHARACTER_ID
from enginebench.server.models.tensorrt_llm.gauges import open_gauges

LOOK_S = 0.1  # upstream's default for statistics and for cancelled requests


@dataclass(slots=True)
class _Stream:
    """A request under way and how it wants its answer."""

    sender: Any
    prompt_ids: Sequence[int]
    streaming: bool
    with_prompt: bool
    counts_input: bool
    counts_output: bool
    tells_times: bool
    arrival_ns: int
    first_ns: int = 0
    sent_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)  # kept until the end without streaming
    cancelled: bool = False
    # A sender that is asked whether it is cancelled after its final response brings the server down.
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine of ``gpt_model_path`` and start the threads."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._with_prompt = parameters["exclude_input_in_output"]["string_value"].lower() != "true"
        self._ids = itertools.count()
        self._streams: dict[int, _Stream] = {}
        self._under_way = threading.Event()
        self._events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
        self._delay_s = float(parameters.get("delay_ms", {}).get("string_value", 0)) / 1e3
        engine = load_engine(_path(parameters["gpt_model_path"]["string_value"]))
        self._gauges = open_gauges(engine.options)
        self._batcher = Batcher(engine, self._events.put)
        for loop in (self._send_loop, self._look_loop):
            threading.Thread(target=loop, daemon=True).start()

    def execute(self, requests: list[Any]) -> None:
        """Queue ``requests``. Never raises: with senders handed out, an exception here would bring the server down."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._accept(request, sender)
            except Exception as error:  # see above
                _refuse(sender, str(error))

    def finalize(self) -> None:
        """Stop the engine."""
        self._batcher.close()

    def _accept(self, request: Any, sender: Any) -> None:
        prompt_ids = _prompt_ids(request)
        sampling = _sampling(request)
        output_tokens = int(_scalar(request, "request_output_len", 0))
        _check_end_id(int(_scalar(request, "end_id", -1)))
        stream = _Stream(
            sender=sender,
            prompt_ids=prompt_ids,
            streaming=bool(_scalar(request, "streaming", False)),
            with_prompt=not _scalar(request, "exclude_input_in_output", not self._with_prompt),
            counts_input=bool(_scalar(request, "return_num_input_tokens", False)),
            counts_output=bool(_scalar(request, "return_num_output_tokens", False)),
            tells_times=bool(_scalar(request, "return_perf_metrics", False)),
            arrival_ns=time.monotonic_ns(),
        )
        request_id = next(self._ids)
        self._streams[request_id] = stream
        self._under_way.set()
        submit = partial(self._batcher.submit, request_id, prompt_ids, output_tokens, sampling)
        if self._delay_s:
            threading.Timer(self._delay_s, submit).start()
            return
        try:
            submit()
        except BaseException:
            del self._streams[request_id]
            raise

    def _send_loop(self) -> None:
        while True:
            event = self._events.get()
            stream = self._streams.pop(event.request_id) if event.ended else self._streams[event.request_id]
            try:
                with stream.lock:
                    stream.ended = event.ended
                    _send(stream, event)
                    self._count(stream, event)
            except Exception as error:  # the client may have gone
                pb_utils.Logger.log_warn(f"a response could not be sent: {error}")
                self._batcher.cancel(event.request_id)

    def _count(self, stream: _Stream, event: TokenEvent) -> None:
        if self._gauges and event.ended and not event.error:
            self._gauges.count(len(stream.prompt_ids), stream.sent_tokens)

    def _look_loop(self) -> None:
        while True:
            self._under_way.wait()
            time.sleep(LOOK_S)
            self._under_way.clear()
            for request_id, stream in list(self._streams.items()):
                self._under_way.set()
                if _has_left(stream):
                    self._batcher.cancel(request_id)
            if self._gauges:
                self._gauges.show(self._batcher.statistics(), idle=self._batcher.idle())


def _has_left(stream: _Stream) -> bool:
    """Whether the client was found to have gone, just now."""
    with stream.lock:
        if stream.ended or stream.cancelled:
            return False
        stream.cancelled = bool(stream.sender.is_cancelled())
        return stream.cancelled


def _path(text: str) -> Path:
    """``text`` as a path, though the stub runs in the C locale, where Python takes file names to be ASCII."""
    return Path(os.fsdecode(text.encode()))


def _send(stream: _Stream, event: TokenEvent) -> None:
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    stream.first_ns = stream.first_ns or event.stamp_ns
    stream.sent_tokens += len(event.token_ids)
    if event.error:
        _refuse(stream.sender, event.error)
    elif stream.streaming:
        stream.sender.send(_response(stream, event, event.token_ids), flags=final if event.ended else 0)
    else:
        stream.token_ids += event.token_ids
        if event.ended:
            prompt = stream.prompt_ids if stream.with_prompt else ()
            stream.sender.send(_response(stream, event, [*prompt, *stream.token_ids]), flags=final)


def _response(stream: _Stream, event: TokenEvent, token_ids: Sequence[int]) -> Any:
    tensors = [
        pb_utils.Tensor("output_ids", np.array([[token_ids]], np.int32)),
        _count("sequence_length", len(token_ids)),
    ]
    if stream.counts_input:
        tensors.append(_count("num_input_tokens", len(stream.prompt_ids)))
    if stream.counts_output:  # of this response, as upstream counts
        tensors.append(_count("num_output_tokens", len(token_ids)))
    if stream.tells_times and event.ended:
        tensors += _times(stream, event)
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _times(stream: _Stream, event: TokenEvent) -> list[Any]:
    stamps_ns = {
        "arrival_time_ns": stream.arrival_ns,
        "first_scheduled_time_ns": event.scheduled_ns,
        "first_token_time_ns": stream.first_ns,
        "last_token_time_ns": event.stamp_ns,
    }
    tensors = [pb_utils.Tensor(name, np.array([[stamp_ns]], np.int64)) for name, stamp_ns in stamps_ns.items()]
    return [*tensors, _count("kv_cache_reused_blocks", 0)]


def _refuse(sender: Any, reason: str) -> None:
    response = pb_utils.InferenceResponse(error=pb_utils.TritonError(reason))
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _prompt_ids(request: Any) -> list[int]:
    tensor = pb_utils.get_input_tensor_by_name(request, "input_ids")
    if tensor is None:
        raise ValueError("The request has no input_ids.")
    ids = tensor.as_numpy()
    if ids.ndim == 2 and len(ids) != 1:
        raise ValueError(f"The core takes one prompt a request, not {len(ids)}.")
    length = int(_scalar(request, "input_lengths", ids.size))
    if not 0 <= length <= ids.size:
        raise ValueError(f"input_lengths is {length} and input_ids has {ids.size} ids.")
    return [int(token_id) for token_id in ids.reshape(-1)[:length]]


def _sampling(request: Any) -> Sampling:
    return Sampling(
        temperature=float(_scalar(request, "temperature", 0.0)),
        top_k=int(_scalar(request, "runtime_top_k", 0)),
        seed=int(_scalar(request, "seed", 0)),
    )


def _check_end_id(end_id: int) -> None:
    if end_id >= FIRST_CHARACTER_ID:
        raise ValueError(
            f"end_id {end_id} would end answers early, which the reference engine does not do: leave it out."
        )


def _scalar(request: Any, name: str, default: Any) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().flat[0]


def _count(name: str, value: int) -> Any:
    return pb_utils.Tensor(name, np.array([[value]], np.int32))
