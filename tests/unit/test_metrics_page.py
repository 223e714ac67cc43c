"""What a metrics page says, read as Prometheus writes it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.server.metrics_page import families, kept, not_offered, parse, values

# As upstream's README shows it, and as Triton 2.51 wrote it here.
PAGE = """\
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 3
nv_trt_llm_request_metrics{model="other",request_type="active",version="1"} 2
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 13 1700000000000
nv_llm_output_token_len_bucket{le="10",model="tensorrt_llm"} 4
nv_llm_output_token_len_sum{model="tensorrt_llm"} 1234
nv_inference_request_success{model="ensemble",version="1"} 7
nv_inference_request_summary_us{model="ensemble",quantile="0.5"} 523
nv_inference_request_summary_us_sum{model="ensemble"} 35124
nv_pinned_memory_pool_used_bytes 0
nv_cpu_utilization NaN
not a line at all
"""


def test_values_are_read_by_label_over_all_other_labels() -> None:
    readings = parse(PAGE)
    assert values(readings, "nv_trt_llm_request_metrics", "request_type") == {"context": 1, "active": 5}
    assert values(readings, "nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type") == {"used": 13}


def test_a_family_that_is_not_there_is_not_zero() -> None:
    readings = kept(parse(PAGE))
    assert values(readings, "nv_trt_llm_general_metrics", "general_type") == {}
    absent = not_offered(families(readings))
    assert "nv_trt_llm_general_metrics" in absent
    assert "nv_gpu_" in absent
    assert "nv_trt_llm_request_metrics" not in absent
    assert "nv_llm_output_token_len" not in absent  # offered as a histogram's sum


def test_buckets_quantiles_and_the_machine_are_left_out() -> None:
    names = families(kept(parse(PAGE)))
    assert "nv_llm_output_token_len_sum" in names
    assert not [name for name in names if "bucket" in name or "summary" in name or "cpu" in name or "pinned" in name]


def test_what_is_no_reading_is_left_out_and_nan_is_kept_as_such() -> None:
    readings = {reading.family: reading.value for reading in parse(PAGE)}
    assert math.isnan(readings["nv_cpu_utilization"])
    assert "not" not in readings
    assert parse('broken{a="1"} twelve\n') == []


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=3), st.floats())
def test_labels_survive_escaping(labels: dict[str, str], value: float) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    if any(len(text.splitlines()) > 1 and "\n" not in text for text in labels.values()):
        return  # other line ends: a page is split into lines first, and no server writes them
    line = f"m{{{','.join(f'{name}={chr(34)}{escaped(text)}{chr(34)}' for name, text in labels.items())}}} {value}"
    if len(line.splitlines()) > 1:
        return
    (reading,) = parse(line)
    assert dict(reading.labels) == labels
    assert reading.value == pytest.approx(value, nan_ok=True)
