"""Triton's ``preprocessing``: text in, token ids out. Adds no special tokens; knows no words to stop at or to avoid."""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginebench.builds.tokenizer import tokenizer_from_spec
from enginebench.reference.tokenizer import END_ID, PAD_ID


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Rebuild the build's tokenizer from its spec."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._delay_s = float(parameters.get("delay_ms", {}).get("string_value", 0)) / 1e3
        self._tokenizer = tokenizer_from_spec(json.loads(parameters["tokenizer_spec"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Encode each request's text, or say why not."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if self._delay_s:  # so that tests know where time goes
            time.sleep(self._delay_s)
        try:
            return pb_utils.InferenceResponse(output_tensors=self._encoded(request))
        except Exception as error:  # whatever a request breaks must not break the requests beside it
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"preprocessing: {error}"))

    def _encoded(self, request: Any) -> list[Any]:
        texts = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy()
        if texts.size != 1:
            raise ValueError(f"one prompt a request, not {texts.size}")
        ids = self._tokenizer.encode(texts.flat[0].decode("utf-8", "strict"))
        lengths = pb_utils.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN").as_numpy()
        return [
            _tensor("INPUT_ID", ids),
            _tensor("REQUEST_INPUT_LEN", [len(ids)]),
            pb_utils.Tensor("REQUEST_OUTPUT_LEN", lengths),
            _tensor("OUT_END_ID", [_given(request, "END_ID", END_ID)]),
            _tensor("OUT_PAD_ID", [_given(request, "PAD_ID", PAD_ID)]),
        ]


def _tensor(name: str, values: Any) -> Any:
    return pb_utils.Tensor(name, np.array([values], np.int32))


def _given(request: Any, name: str, default: int) -> int:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else int(tensor.as_numpy().flat[0])
