"""What in a repository cannot work, and what works and spoils a benchmark: known faults of templates and settings.

Reads the code that comes with the templates for the few lines that are known to matter; runs none of it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.errors import ServerError
from enginebench.server.filling import Demand
from enginebench.server.templates import TemplateSet

FALSE = ("", "0", "false")
TEXT_MODELS = ("preprocessing", "postprocessing")
_SLOW_VOCABULARY = re.compile(r"len\(self\.tokenizer\.vocab\)")
_PAD_TOKEN = re.compile(r"(?<!pad_token:\n)^ *(?:self\.)?tokenizer\.pad_token = ", re.MULTILINE)
_TRUSTS = re.compile(r"trust_remote_code=True")


def refuse(build: Build) -> None:
    """Raise ServerError for a build that no server of this machine can serve."""
    if build.container:
        raise ServerError(
            f"Build {build.name} lives in a container ({build.container[0]} …), from where no server is started: run "
            "enginebench inside it, or start Triton there and attach with --triton-url."
        )
    if build.inflight_off:
        raise ServerError(
            f"Build {build.name} ({build.directory}) cannot be batched in flight ({build.inflight_off}), and nothing "
            "streams without: build it again with paged_kv_cache and remove_input_padding, or use --path direct."
        )


def tokenizer_of(build: Build) -> Path:
    """The directory of the tokenizer that the server loads.

    Raises:
        ServerError: there is none, or it runs Python of its own that nobody has allowed.
    """
    if build.tokenizer is None:
        raise ServerError(
            f"Build {build.name} ({build.directory}) has no tokenizer, which Triton's models need: name the directory "
            "of the model's Hugging Face tokenizer with --tokenizer DIR."
        )
    if not build.tokenizer.is_dir():
        raise ServerError(f"--tokenizer {build.tokenizer} is no directory: name that of the model's tokenizer.")
    if _has_own_code(build.tokenizer) and not build.trust_remote_code:
        raise ServerError(
            f"The tokenizer in {build.tokenizer} runs Python of its own, and Triton's models would run it: read its "
            "*.py files, then pass --trust-remote-code."
        )
    return build.tokenizer.resolve()


def warnings_of(
    templates: TemplateSet, build: Build, demand: Demand, values: Mapping[tuple[str, str], str]
) -> list[str]:
    """One sentence for each thing that is known to distort a benchmark; ``values``: (model, variable) → what it got."""
    return [*_of_values(values, demand), *_of_code(templates, build)]


def _of_values(values: Mapping[tuple[str, str], str], demand: Demand) -> Iterator[str]:
    postprocessing = _count(values.get(("postprocessing", "postprocessing_instance_count")))
    if postprocessing > 1:
        yield (
            f"postprocessing has {postprocessing} instances: through the ensemble, tokens of one stream overtake each "
            "other. Use 1."
        )
    instances = _count(values.get(("tensorrt_llm_bls", "bls_instance_count")), demand.bls_concurrency)
    if instances < demand.bls_concurrency:
        yield (
            f"tensorrt_llm_bls has {instances} instances and serves one request in each: of {demand.bls_concurrency} "
            f"at once, the others wait before their first token."
        )
    if values.get(("tensorrt_llm", "enable_kv_cache_reuse"), "").lower() not in FALSE:
        yield "enable_kv_cache_reuse is on: a prompt that is sent twice skips its prefill the second time."
    if _count(values.get(("tensorrt_llm", "max_queue_delay_microseconds"))) > 0:
        yield "max_queue_delay_microseconds is above 0: requests wait in Triton for others before the engine sees them."
    if values.get(("tensorrt_llm", "decoupled_mode"), "true").lower() != "true":
        yield "decoupled_mode is off: nothing streams, and a request to stream fails."


def _of_code(templates: TemplateSet, build: Build) -> Iterator[str]:
    if templates.kind != "inflight_batcher_llm":
        return
    if _SLOW_VOCABULARY.search(templates.code("postprocessing")):
        yield (
            "postprocessing/1/model.py counts the tokenizer's vocabulary for every response (0.13; about 40 ms a "
            "token): write self.tokenizer.vocab_size there in a copy, and name the copy with --templates."
        )
    if "add_special_tokens" not in templates.configs["preprocessing"]:
        yield (
            "These templates (0.5, 0.6) leave special tokens to the tokenizer: prompts may be longer than on the path "
            "direct."
        )
    if build.tokenizer is not None and _has_own_code(build.tokenizer):
        yield from _of_own_code(templates, build.tokenizer)


def _of_own_code(templates: TemplateSet, tokenizer: Path) -> Iterator[str]:
    for model in TEXT_MODELS:
        code = templates.code(model)
        if code and not _TRUSTS.search(code):
            yield (
                f"{model}/1/model.py does not trust the Python in {tokenizer} (0.5, 0.6): it will most likely fail "
                f"with 'Tokenizer class … does not exist'. Use templates of 0.7.0 or later."
            )
        elif _PAD_TOKEN.search(code):
            yield (
                f"{model}/1/model.py sets pad_token whether or not there is one (0.5 to 0.11), which the tokenizer in "
                f"{tokenizer} may not let it: if the server says 'no setter', use templates of 0.12 or later."
            )


def _has_own_code(tokenizer: Path) -> bool:
    try:
        config = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "AutoTokenizer" in (config.get("auto_map") or {})


def _count(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isdigit() else default
