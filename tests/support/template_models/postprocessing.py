"""For upstream's configuration of any version: our postprocessing, its tokenizer told by a file in tokenizer_dir."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from enginebench.builds.tokenizer import tokenizer_from_spec


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameter that upstream has."""
        config = json.loads(args["model_config"])
        spec = Path(config["parameters"]["tokenizer_dir"]["string_value"]) / "spec.json"
        self._tokenizer = tokenizer_from_spec(json.loads(spec.read_text()))
        self._dims = len(config["output"][0]["dims"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Decode all ids of each request: before 0.6 no length comes with them."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        ids = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        texts = [self._tokenizer.decode(beam.tolist()).encode() for beam in ids.reshape(-1, ids.shape[-1])]
        shape = (1,) * (self._dims + 1)
        output = pb_utils.Tensor("OUTPUT", np.array(texts, dtype=np.object_).reshape(shape))
        return pb_utils.InferenceResponse(output_tensors=[output])
