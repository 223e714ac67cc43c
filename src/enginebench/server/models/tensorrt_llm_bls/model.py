"""Triton's ``tensorrt_llm_bls``: the ensemble's three steps, called from Python. Text in, text out.

One request at a time for each instance, as upstream: requests beyond the number of instances wait. Each response
carries the text of its own tokens (``accumulate_tokens`` false).
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

PREPROCESSING = {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens", "END_ID": "end_id", "PAD_ID": "pad_id"}
CORE_FROM_PREPROCESSING = {
    "input_ids": "INPUT_ID",
    "input_lengths": "REQUEST_INPUT_LEN",
    "request_output_len": "REQUEST_OUTPUT_LEN",
    "end_id": "OUT_END_ID",
    "pad_id": "OUT_PAD_ID",
}
CORE_FROM_REQUEST = {
    "exclude_input_in_output": "exclude_input_in_output",
    "runtime_top_k": "top_k",
    "temperature": "temperature",
    "seed": "seed",
    "return_num_input_tokens": "return_num_input_tokens",
    "return_num_output_tokens": "return_num_output_tokens",
    "return_perf_metrics": "return_perf_metrics",
    "streaming": "stream",
}
ANSWERED = {
    "return_num_input_tokens": ("num_input_tokens",),
    "return_num_output_tokens": ("num_output_tokens",),
    "return_perf_metrics": (
        "kv_cache_reused_blocks",
        "arrival_time_ns",
        "first_scheduled_time_ns",
        "first_token_time_ns",
        "last_token_time_ns",
    ),
}
"""What the core says beside its tokens, when it is asked to; passed on."""


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn the core's name."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._core = parameters["tensorrt_llm_model_name"]["string_value"]
        # The stub drops its own hold on a finished stream on a thread without the GIL. If that hold is the last one,
        # tensors are freed there and the process crashes (seen on Python 3.12): ours must outlive it.
        self._finished: deque[Any] = deque(maxlen=8)

    def execute(self, requests: list[Any]) -> None:
        """Answer ``requests`` one after the other. Never raises: the responses are sent here."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                for response in self._answers(request):
                    sender.send(response)
            except Exception as error:  # see above
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _answers(self, request: Any) -> Iterator[Any]:
        given = {tensor.name(): tensor for tensor in request.inputs()}
        trace = request.trace()  # so that a traced request shows its steps
        outputs = tuple(CORE_FROM_PREPROCESSING.values())
        encoded = _call("preprocessing", _renamed(PREPROCESSING, given), outputs, trace)
        inputs = _renamed(CORE_FROM_PREPROCESSING, encoded) + _renamed(CORE_FROM_REQUEST, given)
        asked = [name for flag, names in ANSWERED.items() if flag in given for name in names]
        for tokens in self._tokens(inputs, ("output_ids", "sequence_length", *asked), trace):
            ids = _renamed({"TOKENS_BATCH": "output_ids", "SEQUENCE_LENGTH": "sequence_length"}, tokens)
            text = _call("postprocessing", ids, ("OUTPUT",), trace)
            answered = [tokens[name] for name in asked if name in tokens]
            yield pb_utils.InferenceResponse(output_tensors=_renamed({"text_output": "OUTPUT"}, text) + answered)

    def _tokens(self, inputs: list[Any], outputs: Sequence[str], trace: Any) -> Iterator[dict[str, Any]]:
        responses = _request(self._core, inputs, outputs, trace).exec(decoupled=True)
        self._finished.append(responses)
        for response in responses:
            if tensors := _tensors(response):  # the last one may be a mere flag
                yield tensors


def _call(model: str, inputs: list[Any], outputs: Sequence[str], trace: Any) -> dict[str, Any]:
    return _tensors(_request(model, inputs, outputs, trace).exec())


def _request(model: str, inputs: list[Any], outputs: Sequence[str], trace: Any) -> Any:
    return pb_utils.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=list(outputs), trace=trace)


def _tensors(response: Any) -> dict[str, Any]:
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return {tensor.name(): tensor for tensor in response.output_tensors()}


def _renamed(names: Mapping[str, str], tensors: Mapping[str, Any]) -> list[Any]:
    """The tensors that ``names`` asks for (new name → present name); absent ones are left out."""
    return [pb_utils.Tensor(new, tensors[old].as_numpy()) for new, old in names.items() if old in tensors]
