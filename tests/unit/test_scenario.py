"""Scenario files: what they hold once loaded, and the schema that editors use."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from enginebench.errors import ScenarioError
from enginebench.measure.metrics import METRICS, OF_THE_CLIENT
from enginebench.plan.cells import PATHS
from enginebench.plan.load import Batch
from enginebench.plan.prompt_file import Line
from enginebench.plan.scenario import (
    DISTRIBUTIONS,
    OF_GPU,
    RATES,
    Scenario,
    load_scenario,
    scenario_facts,
    scenario_names,
    schema,
)
from enginebench.run.endpoints import scenario_gates

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def load(tmp_path: Path, text: str, name: str = "example") -> Scenario:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return load_scenario(path)


FULL = """
description: All keys.
prompts: [写一篇1000字的玄幻小说]
output_tokens: [128, 1024]
batch_sizes: [1, 8]
streaming: [true, false]
sampling: {temperature: 0, seed: 7}
kv_cache_reuse: false
requests: 16
rounds: 3
warmup_rounds: 2
paths: [direct, ensemble]
slo: {ttft_ms: 500, tpot_ms: 50}
gate:
  - {cell: ensemble-stream-out1024-bs008, metric: tpot_p50, margin: 5%}
  - {cell: direct-stream-out1024-bs008, metric: output_tokens_per_s, margin: 2.5 %}
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    scenario = load(tmp_path, FULL)
    assert scenario.name == "example"
    assert scenario.prompts[0].lines == (Line("写一篇1000字的玄幻小说"),)
    assert scenario.loads == (Batch(1), Batch(8))
    assert (scenario.rounds, scenario.warmup_rounds, scenario.requests) == (3, 2, 16)
    assert scenario.slo_s == {"ttft": 0.5, "tpot": 0.05}
    assert [(gate.cell, gate.metric, gate.margin) for gate in scenario.gate] == [
        ("ensemble-stream-out1024-bs008", "tpot_p50", 0.05),
        ("direct-stream-out1024-bs008", "output_tokens_per_s", 0.025),
    ]


def test_the_least_that_a_scenario_says(tmp_path: Path) -> None:
    scenario = load(tmp_path, "prompts: Hello\noutput_tokens: 8\n")
    assert scenario.loads == (Batch(1),)
    assert scenario.streaming == (True,)
    assert scenario.paths == ("direct", "ensemble")
    assert (scenario.rounds, scenario.warmup_rounds, scenario.kv_cache_reuse) == (5, 1, False)
    assert scenario.sampling.temperature == 0


def test_load_is_the_long_form_of_batch_sizes(tmp_path: Path) -> None:
    short = load(tmp_path, "prompts: Hello\noutput_tokens: 8\nbatch_sizes: [1, 8]\n")
    long = load(tmp_path, "prompts: Hello\noutput_tokens: 8\nload: [{kind: batch, sizes: [1, 8]}]\n")
    assert short.loads == long.loads == (Batch(1), Batch(8))


def test_every_kind_of_prompt(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('"你是谁？"\n\n{"prompt": "Hi", "id": 4}\n', encoding="utf-8")
    scenario = load(
        tmp_path,
        "output_tokens: 8\nprompts:\n  - Hello\n  - {text: 你好}\n  - file: asked.jsonl\n"
        "  - synthetic: {input_tokens: 512, count: 3}\n  - token_ids: [[5, 6], [7]]\n",
    )
    assert [source.count for source in scenario.prompts] == [1, 1, 2, 3, 2]
    assert [line.prompt for line in scenario.prompts[2].lines] == ["你是谁？", "Hi"]
    assert scenario.prompt_count == 9


def test_a_gate_may_name_the_whole_cell_id(tmp_path: Path) -> None:
    cell_id = "example-direct-stream-out0008-bs001"
    for cell in (cell_id, cell_id.removeprefix("example-")):
        gate = f"gate: {{cell: {cell}, metric: goodput, margin: 0.1}}"
        scenario = load(tmp_path, f"prompts: Hello\noutput_tokens: 8\n{gate}\n")
        (gated,) = scenario_gates({"example": scenario_facts(scenario)}, {cell_id: {"path": "direct"}})
        assert (gated.cell_id, gated.name, gated.margin) == (cell_id, "goodput", 0.1)


def test_facts_are_json_and_keep_prompt_files_short(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('"a"\n"b"\n')
    facts = scenario_facts(load(tmp_path, "prompts: {file: asked.jsonl}\noutput_tokens: 8\n"))
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == "example"
    assert facts["prompts"] == [{"file": "asked.jsonl", "count": 2, "sha256": facts["prompts"][0]["sha256"]}]


def test_lengths_of_a_file_are_named_by_their_mean_and_deviation(tmp_path: Path) -> None:
    def facts(*lengths: int, output_tokens: str = "from_file") -> tuple[str, object]:
        lines = (json.dumps({"prompt": "a", "output_tokens": length}) + "\n" for length in lengths)
        (tmp_path / "asked.jsonl").write_text("".join(lines))
        scenario = load(tmp_path, f"prompts: {{file: asked.jsonl}}\noutput_tokens: {output_tokens}\n")
        jsonschema.validate(json.loads(scenario.model_dump_json(exclude_none=True)), schema())
        jsonschema.validate({"prompts": "a", "output_tokens": yaml.safe_load(output_tokens)}, schema())
        return scenario.cells_on(("direct",))[0].shape, scenario_facts(scenario)

    assert facts(4, 4)[0] == "stream-out0004-bs001"
    assert facts(100, 164)[0] == "stream-out0132sd32-bs001"
    assert facts(4, 4, 5)[0] == "stream-out0004sd1-bs001"  # not alike, and never told as such
    assert facts(1, 2000)[0] == "stream-out1000sd1000-bs001"
    assert facts(4, 6)[1] != facts(6, 4)[1]  # other answers, and runs that cannot be compared
    assert facts(4, 6, output_tokens="[4]")[1] == facts(6, 4, output_tokens="[4]")[1]
    assert facts(4, 6, output_tokens="from_file") == facts(4, 6, output_tokens="[from_file]")


def test_a_bom_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_bytes(b"\xef\xbb\xbfprompts: [Hello]\r\noutput_tokens: 8\r\n")
    assert load_scenario(path).prompts[0].lines == (Line("Hello"),)


@pytest.mark.parametrize("name", scenario_names(SCENARIOS))
def test_shipped_scenarios_load_and_meet_the_schema(name: str) -> None:
    path = SCENARIOS / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert load_scenario(path).description
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(yaml.safe_load(text), schema())


def test_the_schema_file_is_current() -> None:
    assert json.loads((SCENARIOS / "schema.json").read_text(encoding="utf-8")) == schema()


def test_the_schema_takes_what_the_loader_takes() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(yaml.safe_load(FULL))
    assert not validator.is_valid({"prompts": ["Hello"], "output_tokens": [8], "batchsizes": [1]})
    assert not validator.is_valid({"prompts": ["Hello"], "output_tokens": [8], "paths": ["ensembl"]})
    assert schema()["properties"]["paths"]["anyOf"][0]["enum"] == list(PATHS)


def test_the_readme_explains_every_key() -> None:
    readme = (SCENARIOS / "README.md").read_text(encoding="utf-8")
    made = schema()
    keys = [*made["properties"], *(key for model in made["$defs"].values() for key in model["properties"])]
    assert [key for key in keys if f"`{key}`" not in readme] == []


def test_gpu_memory_is_gated_on_a_path(tmp_path: Path) -> None:
    body = "prompts: Hello\noutput_tokens: 8\npaths: [direct]\ngate: {cell: %s, metric: gpu_memory, margin: 2%%}\n"
    (gate,) = load(tmp_path, body % "direct").gate
    assert (gate.cell, gate.metric) == ("direct", "gpu_memory")
    with pytest.raises(ScenarioError, match='"ensemble" is not a path of this scenario; choose from direct'):
        load(tmp_path, body % "ensemble")


def test_what_can_be_gated_is_what_is_measured() -> None:
    """Less what is of the client, and no property of a build."""
    kinds = {metric.name: metric.kind for metric in METRICS if metric.name not in OF_THE_CLIENT}
    assert {metric.name for metric in METRICS if "gpu" in metric.needs} == set(OF_GPU)
    assert kinds == {**dict.fromkeys(DISTRIBUTIONS, "distribution"), **dict.fromkeys((*RATES, *OF_GPU), "scalar")}
