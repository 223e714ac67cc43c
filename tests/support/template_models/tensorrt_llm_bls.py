"""For upstream's configuration of any version: our BLS model, told the core's name where the version does not."""

import json

from enginebench.server.models.tensorrt_llm_bls.model import TritonPythonModel as Ours


class TritonPythonModel(Ours):
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Fill in what older versions have no parameter for."""
        config = json.loads(args["model_config"])
        assert config["parameters"]["accumulate_tokens"]["string_value"] == "false"
        config["parameters"].setdefault("tensorrt_llm_model_name", {"string_value": "tensorrt_llm"})
        super().initialize({**args, "model_config": json.dumps(config)})
