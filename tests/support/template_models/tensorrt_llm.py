"""For upstream's configuration of any version: our core, which gives the outputs that the version declares."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginebench.server.models.tensorrt_llm import model as ours


class TritonPythonModel(ours.TritonPythonModel):
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Fill in what 0.5 has no parameter for, and wrap responses."""
        config = json.loads(args["model_config"])
        config["parameters"].setdefault("exclude_input_in_output", {"string_value": "true"})
        engine = config["parameters"]["gpt_model_path"]
        if Path(engine["string_value"], "reference").is_dir():  # an engine of TensorRT-LLM's by its looks
            engine["string_value"] += "/reference"
        declared = {output["name"] for output in config["output"]}
        wrapped = ours._response

        def response(*arguments: Any) -> Any:
            tensors = list(wrapped(*arguments).output_tensors())
            # The ensembles of 0.6 to 0.8 wait for these in every response.
            tensors.append(pb_utils.Tensor("cum_log_probs", np.zeros((1, 1), np.float32)))
            tensors.append(pb_utils.Tensor("output_log_probs", np.zeros((1, 1, len(arguments[-1])), np.float32)))
            return pb_utils.InferenceResponse(output_tensors=[one for one in tensors if one.name() in declared])

        ours._response = response  # type: ignore[assignment]
        super().initialize({**args, "model_config": json.dumps(config)})
