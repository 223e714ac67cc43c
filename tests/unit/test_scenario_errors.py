"""What a user reads who got a scenario file wrong: one sentence with file, line, value and fix."""

from pathlib import Path

import pytest

from enginebench.errors import ScenarioError
from enginebench.plan.scenario import load_scenario

BASE = "prompts: [Hello]\noutput_tokens: [8]\n"  # the line under test is the third

LINES = {
    "misspelt": ("batch_size: [1]", "batch_size is not a known key; did you mean 'batch_sizes'?"),
    "unlike any": ("zzzzz: 1", "zzzzz is not a known key; choose from description, prompts, "),
    "number as key": ("7: 1", "7 is not a known key; choose from "),
    "wrong type": ("rounds: many", 'rounds must be a whole number, not "many"'),
    "bool as number": ("rounds: yes", "rounds must be a whole number, not true"),
    "fraction": ("rounds: 2.5", "rounds must be a whole number, not 2.5"),
    "number as bool": ("streaming: 1", "streaming must be true or false, not 1"),
    "nothing": ("rounds:", "rounds must be a whole number, not nothing"),
    "negative": ("warmup_rounds: -1", "warmup_rounds must be at least 0, not -1"),
    "zero": ("batch_sizes: [1, 0]", "batch_sizes[1] must be more than 0, not 0"),
    "infinite": ("slo: {ttft_ms: .inf}", "slo.ttft_ms must be a finite number, not Infinity"),
    "empty list": ("batch_sizes: []", "batch_sizes must not be empty; give at least 1"),
    "list for mapping": ("slo: [500]", "slo must be a mapping of keys to values, not [500]"),
    "repeated": ("batch_sizes: [1, 8, 1]", "batch_sizes[2] gives 1 twice"),
    "path": ("paths: [direct, ensembl]", "paths[1] \"ensembl\" is not a path; did you mean 'ensemble'"),
    "path type": ("paths: [1]", "paths[0] must be text, not 1"),
    "load key of another kind": (
        "load: [{kind: rate, sizes: [1], per_s: 1}]",
        "load[0].sizes is no key of a rate load, but of batch; remove it",
    ),
    "load without level": ("load: {kind: concurrency}", "load is a concurrency load and needs levels, e.g."),
    "rate and trace": ("load: [{kind: rate, per_s: 1, trace: x}]", "load[0] is a rate load and needs one of per_s and"),
    "rate without end": ("load: [{kind: rate, per_s: 1}]", "load[0] has no end; give it requests or duration_s"),
    "two ends": (
        "load: [{kind: rate, per_s: 1, requests: 2, duration_s: 2}]",
        "load[0].duration_s and requests both set the length of a round",
    ),
    "burstiness alone": (
        "load: [{kind: rate, per_s: 1, requests: 2, burstiness: 2}]",
        "load[0].burstiness must stand together: arrival: gamma, burstiness",
    ),
    "arrival": (
        "load: [{kind: rate, per_s: 1, requests: 2, arrival: poison}]",
        'load[0].arrival must be constant, poisson or gamma, not "poison"',
    ),
    "speedup": ("load: [{kind: rate, per_s: 1, requests: 2, speedup: 2}]", "load[0].speedup needs a trace; change"),
    "no trace": ("load: [{kind: rate, trace: x.jsonl}]", "load[0].trace cannot be used: "),
    "rates that look alike": (
        "load: [{kind: rate, per_s: [1, 1.001], requests: 2}]",
        "load gives the load r0001.00 twice (ids keep two decimals of a rate); remove one",
    ),
    "trim": ("trim: {warmup: 50%, cooldown: 50%}", "trim leaves nothing of a round; trim less than 100%"),
    "trim twice": ("trim: {warmup_s: 1, warmup: 10%}", "trim gives a share and seconds for the same end of a round"),
    "order": ("order: random", 'order must be file or shuffled, not "random"'),
    "load unknown": (
        "load: [{kind: batsh, sizes: 1}]",
        'load[0].kind must be batch, concurrency or rate, not "batsh"',
    ),
    "load sizes twice": ("load: [{kind: batch, sizes: 1}, {kind: batch, sizes: 1}]", "load gives the load bs001 twice"),
    "load and sizes": (
        "load: {kind: batch, sizes: 1}\nbatch_sizes: 1",
        "load and batch_sizes say the same thing; keep",
    ),
    "nested key": ("sampling: {temprature: 1}", "sampling.temprature is not a known key; did you mean 'temperature'?"),
    "no text as a key": ("yes: 1", "the file has the key true, which is no text; put it in quotes, or remove it"),
    "huge count": ("requests: 99999999999999999999", "requests must be at most 10000000, not 99999999999999999999"),
    "huge round": (
        "load: {kind: rate, per_s: 1000, duration_s: 1000000}",
        "load.duration_s makes more than 10,000,000 requests a round; shorten it",
    ),
    "exponent": ("load: {kind: rate, per_s: 1e3, requests: 8}", 'not "1e3"; YAML wants the sign of an exponent'),
    "duplicate": ("rounds: 3\nrounds: 4", "the key 'rounds' is given twice (first on line 3); remove one of them"),
    "duplicate below": ("slo: {tpot_ms: 1, tpot_ms: 2}", "the key 'tpot_ms' is given twice (first on line 3)"),
    "tab": ("\trounds: 3", "not valid YAML, "),
    "open bracket": ("batch_sizes: [1, 8", "not valid YAML, "),
    "python tag": ("rounds: !!python/object:os.system {}", "not valid YAML, could not determine a constructor"),
    "margin": (
        "gate: {cell: direct-stream-out0008-bs001, metric: goodput, margin: 5}",
        "gate.margin must be a percentage",
    ),
    "gate cell": (
        "gate: [{cell: direct-stream-out008-bs001, metric: goodput, margin: 5%}]",
        "is not a cell of this scenario; did you mean 'direct-stream-out0008-bs001'?",
    ),
    "gate metric": (
        "gate: [{cell: direct-stream-out0008-bs001, metric: tpot_p5, margin: 5%}]",
        'gate[0].metric "tpot_p5" is not a metric that can be gated; did you mean \'tpot_p',
    ),
    "gate stream": (
        "gate: [{cell: direct-nostream-out0008-bs001, metric: ttft_p50, margin: 5%}]\nstreaming: [true, false]",
        'gate[0].metric "ttft_p50" has no value without streaming',
    ),
    "gate of five": (
        f"gate: [{', '.join(['{cell: direct-stream-out0008-bs001, metric: goodput, margin: 5%}'] * 5)}]",
        "gate holds 5 entries; leave at most 4",
    ),
    "gate twice": (
        """gate:
- {cell: direct-stream-out0008-bs001, metric: goodput, margin: 5%}
- {cell: example-direct-stream-out0008-bs001, metric: goodput, margin: 9%}""",
        'gate[1] gates "goodput" of example-direct-stream-out0008-bs001 again; remove one',
    ),
    "bare gate lacks": ("gate: {cell: direct-stream-out0008-bs001}", "gate.metric is missing; add it"),
    "gate lacks": ("gate: [{cell: direct-stream-out0008-bs001}]", "gate[0].metric is missing; add it"),
}


def message(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "example.yaml"
    path.write_bytes(raw)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(f"{tmp_path}/")


@pytest.mark.parametrize(("line", "said"), LINES.values(), ids=LINES)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    got = message(tmp_path, f"{BASE}{line}\n".encode())
    assert said in got
    numbers = {"duplicate": 4, "open bracket": 4, "gate twice": 5, "no text as a key": 1}
    wrong = next(name for name, entry in LINES.items() if entry == (line, said))
    assert got.startswith(f"example.yaml:{numbers.get(wrong, 3)}: ")


PROMPTS = {
    "number": ("[5]", "prompts[0] must be text, not 5; put it in quotes"),
    "yes": ("[Hello, yes]", "prompts[1] must be text, not true; put it in quotes"),
    "empty": ("['']", "prompts[0] must not be empty"),
    "none": ("[]", "prompts must not be empty; give at least 1"),
    "null text": ("{text: }", "prompts must hold exactly one of text, file, synthetic, token_ids"),
    "two sources": ("[{text: a, file: b}]", "prompts[0] must hold exactly one of text, file, synthetic, token_ids"),
    "kind": ("{synthetc: {input_tokens: 5}}", "prompts.synthetc is not a known key; did you mean 'synthetic'?"),
    "length": ("{synthetic: {input_tokens: -5}}", "prompts.synthetic.input_tokens must be more than 0, not -5"),
    "stdev": ("{synthetic: {input_tokens: {mean: 5, stdev: -1}}}", "input_tokens.stdev must be at least 0, not -1"),
    "flat ids": ("{token_ids: [1, 2]}", "prompts.token_ids[0] must be a list such as [1, 8], not 1"),
    "negative id": ("{token_ids: [[1, -2]]}", "prompts.token_ids[0][1] must be at least 0, not -2"),
    "surrogate": ('["\\ud800"]', "prompts[0] must be text without lone surrogates"),
    "itself": ("&a [*a]", "prompts[0] must be text, not an alias of itself"),
    "no file": ("{file: none.jsonl}", "prompts.file cannot be used: "),
}


@pytest.mark.parametrize(("prompts", "said"), PROMPTS.values(), ids=PROMPTS)
def test_wrong_prompts_are_named(tmp_path: Path, prompts: str, said: str) -> None:
    got = message(tmp_path, f"output_tokens: 8\nprompts: {prompts}\n".encode())
    assert said in got
    assert got.startswith("example.yaml:2: ")


JSONL = {
    "not json": (b'"a"\n{prompt}\n', "asked.jsonl:2 is not JSON; write"),
    "no prompt": (b'"a"\n\n{"said": "b"}\n', "asked.jsonl:3 holds no prompt; write"),
    "ids of several prompts": (b'{"input_ids": [[5], [7]]}\n', "asked.jsonl:1 holds no prompt; write"),
    "nothing": (b"null\n", "asked.jsonl:1 holds no prompt"),
    "number": (b"7\n", "asked.jsonl:1 holds no prompt"),
    "surrogate": (b'"\\ud800"\n', "asked.jsonl:1 holds no prompt"),
    "empty": (b"\n", "asked.jsonl holds no prompts"),
    "no length": (
        b'{"input_length": 0}\n',
        "asked.jsonl:1 has 0 for a length; write input_length as a whole number from 1",
    ),
    "no answer": (
        b'{"prompt": "a", "output_tokens": -1}\n',
        "asked.jsonl:1 has -1 for a length; write output_tok",
    ),
    "long list": (
        b'{"prompt": "a", "output_tokens": [' + b"7, " * 99 + b"7]}\n",
        "7, 7,... for a length; write output_tok",
    ),
    "latin-1": (b'"a"\n"\xfc"\n', "asked.jsonl:2: byte 0xfc is not UTF-8"),
}


@pytest.mark.parametrize(("raw", "said"), JSONL.values(), ids=JSONL)
def test_wrong_prompt_files_are_named(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "asked.jsonl").write_bytes(raw)
    got = message(tmp_path, b"output_tokens: 8\nprompts: {file: asked.jsonl}\n")
    assert got.startswith("example.yaml:2: prompts.file cannot be used: ")
    assert said in got


FILES = {
    "empty": (b"", "example.yaml:1: the file is empty"),
    "comments": (b"# nothing\n", "example.yaml:1: the file is empty"),
    "a text": (b"hello\n", 'example.yaml:1: the file must be a mapping of keys to values, not "hello"'),
    "a list": (b"- a\n", "example.yaml:1: the file must be a mapping"),
    "no prompts": (b"output_tokens: 8\n", "example.yaml:1: prompts is missing; add it"),
    "misspelt, not missing": (b"output_tokens: 8\npromts: [a]\n", "example.yaml:2: promts is not a known key"),
    "latin-1": (b"prompts: [a]\ndescription: \xfcber\n", "example.yaml:2: byte 0xfc is not UTF-8; save the file"),
    "control character": (b"prompts: [a]\ndescription: \x01\n", "example.yaml:2: not valid YAML, it holds a control"),
    "two documents": (b"prompts: [a]\n---\nprompts: [b]\n", "example.yaml:2: not valid YAML, "),
    "deep": (b"prompts: " + b"[" * 5000, "example.yaml:1: not valid YAML, "),
    "no such date": (b"prompts: [2020-99-99]\n", "example.yaml:1: not valid YAML, "),
}


@pytest.mark.parametrize(("raw", "said"), FILES.values(), ids=FILES)
def test_unusable_files_are_named(tmp_path: Path, raw: bytes, said: str) -> None:
    assert message(tmp_path, raw).startswith(said)


def test_a_missing_file_and_a_bad_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.yaml: there is no such file"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="'Not Good' cannot be a scenario's name"):
        load_scenario(tmp_path / "Not Good.yaml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\nnonsense\n", "times.jsonl:2 is not JSON; write a number of seconds"),
        ("1\n[2]\n", "times.jsonl:2 holds no time; write"),
        ("1\ntrue\n", "times.jsonl:2 holds no time; write"),
        ('1\n{"at_s": NaN}\n', "times.jsonl:2 holds no time; write"),
        ("1\n1\n", "holds fewer than two different times, and so no rate"),
        ("", "holds fewer than two different times, and so no rate"),
    ],
)
def test_a_wrong_trace_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "times.jsonl").write_text(text)
    got = message(tmp_path, f"{BASE}load: {{kind: rate, trace: times.jsonl}}\n".encode())
    assert "load.trace cannot be used: " in got
    assert said in got


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "prompts: {file: asked.jsonl}\noutput_tokens: from_file",
            "is from_file, but asked.jsonl:2 has no output_tokens or output_length; add it there, or give a",
        ),
        (
            "prompts: [{file: asked.jsonl}, Hi]\noutput_tokens: from_file",
            "is from_file, but asked.jsonl:2 has no output_tokens",
        ),
        ("prompts: Hi\noutput_tokens: from_file", "is from_file, but prompts[0] is no file; take it away, or give"),
        ("prompts: Hi\noutput_tokens: file", 'must be from_file, a whole number or a list of them, not "file"'),
        ("prompts: Hi\noutput_tokens: [8, from_file]", 'must be a whole number, not "from_file"'),
    ],
)
def test_lengths_that_no_file_says_are_named(tmp_path: Path, keys: str, said: str) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "a", "output_tokens": 9}\n{"prompt": "b"}\n')
    got = message(tmp_path, f"{keys}\n".encode())
    assert got.startswith("example.yaml:2: output_tokens")
    assert said in got


def test_a_wrong_length_of_answers_is_named(tmp_path: Path) -> None:
    got = message(tmp_path, b"prompts: Hi\noutput_tokens: {mean: 8, stdev: -1}\n")
    assert "example.yaml:2: output_tokens.stdev must be at least 0, not -1" in got


def test_lengths_that_mostly_miss_their_mean_are_refused(tmp_path: Path) -> None:
    text = "prompts: {synthetic: {input_tokens: {mean: 512, stdev: 64000}}}\noutput_tokens: [8]\n"
    assert "64000 is more than half of the mean 512" in message(tmp_path, text.encode())
