"""For upstream's configuration of any version: our BLS model, told the core's name where the version does not."""

import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from enginebench.server.models.tensorrt_llm_bls import model as ours


class TritonPythonModel(ours.TritonPythonModel):
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Fill in what older versions have no parameter for."""
        config = json.loads(args["model_config"])
        assert config["parameters"]["accumulate_tokens"]["string_value"] == "false"
        config["parameters"].setdefault("tensorrt_llm_model_name", {"string_value": "tensorrt_llm"})
        ours._renamed = _with_a_batch
        super().initialize({**args, "model_config": json.dumps(config)})


def _with_a_batch(names: Mapping[str, str], tensors: Mapping[str, Any]) -> list[Any]:
    """As ours; upstream's BLS model takes some inputs without the dimension of the batch, which the core wants."""
    found = {new: tensors[old].as_numpy() for new, old in names.items() if old in tensors}
    return [pb_utils.Tensor(new, one if one.ndim > 1 else one.reshape(1, -1)) for new, one in found.items()]
