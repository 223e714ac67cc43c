"""For upstream's configuration of the LLM API's model: streams the accumulated text, or answers once, as that does."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn whether several responses are allowed."""
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))

    def execute(self, requests: list[Any]) -> None:
        """Answer each request with as many letters as it asks for."""
        for request in requests:
            sender = request.get_response_sender()
            count = int(pb_utils.get_input_tensor_by_name(request, "sampling_param_max_tokens").as_numpy().flat[0])
            streaming = pb_utils.get_input_tensor_by_name(request, "streaming")
            streams = self._decoupled and streaming is not None and bool(streaming.as_numpy().flat[0])
            for length in range(1, count + 1) if streams else [count]:
                text = np.array(["a" * length], dtype=np.object_)
                sender.send(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("text_output", text)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
