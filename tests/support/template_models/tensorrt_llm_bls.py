"""For upstream's configuration of any version: our BLS model, which asks the core for what the version declares."""

import json

from enginebench.server.models.tensorrt_llm_bls import model as ours


class TritonPythonModel(ours.TritonPythonModel):
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Fill in what older versions have no parameter for."""
        config = json.loads(args["model_config"])
        assert config["parameters"]["accumulate_tokens"]["string_value"] == "false"
        config["parameters"].setdefault("tensorrt_llm_model_name", {"string_value": "tensorrt_llm"})
        if "num_input_tokens" not in {output["name"] for output in config["output"]}:
            ours.COUNTS = ()
        super().initialize({**args, "model_config": json.dumps(config)})
