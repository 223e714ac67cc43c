"""For upstream's configuration of any version: our preprocessing, its tokenizer told by a file in tokenizer_dir."""

import json
from pathlib import Path
from typing import Any

from enginebench.server.models.preprocessing.model import TritonPythonModel as Ours


class TritonPythonModel(Ours):
    """What the python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameter that upstream has."""
        config = json.loads(args["model_config"])
        assert config["parameters"].get("add_special_tokens", {"string_value": "False"})["string_value"] == "False"
        spec = Path(config["parameters"]["tokenizer_dir"]["string_value"]) / "spec.json"
        config["parameters"]["tokenizer_spec"] = {"string_value": spec.read_text()}
        self._declared = {output["name"] for output in config["output"]}
        super().initialize({**args, "model_config": json.dumps(config)})

    def _encoded(self, request: Any) -> list[Any]:
        return [tensor for tensor in super()._encoded(request) if tensor.name() in self._declared]
