"""Triton's ``postprocessing``: token ids in, text out. Decodes each response for itself, as upstream does."""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginebench.builds.tokenizer import tokenizer_from_spec


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Rebuild the build's tokenizer from its spec."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._delay_s = float(parameters.get("delay_ms", {}).get("string_value", 0)) / 1e3
        self._tokenizer = tokenizer_from_spec(json.loads(parameters["tokenizer_spec"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Decode each request's ids (batch, beams, length), of which ``SEQUENCE_LENGTH`` (batch, beams) count."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if self._delay_s:  # so that tests know where time goes
            time.sleep(self._delay_s)
        ids = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        texts = [
            self._tokenizer.decode(beam[:length].tolist()).encode()
            for beams, counts in zip(ids, lengths, strict=True)
            for beam, length in zip(beams, counts, strict=True)
        ]
        output = np.array(texts, dtype=np.object_).reshape(lengths.shape)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT", output)])
