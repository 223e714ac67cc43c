"""A model repository for a TensorRT-LLM build, made of the user's own templates: what went into it, and from where.

The five models of ``inflight_batcher_llm`` for an engine, the one model of ``llmapi`` for a checkpoint. Templates are
copied, with their Python, and filled; the engine stays where it is.
"""

import difflib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.builds.build import Build
from enginebench.errors import ServerError
from enginebench.server.filling import Demand, Value, older_policy, values_of
from enginebench.server.hazards import refuse, tokenizer_of, warnings_of
from enginebench.server.llmapi import MODEL_YAML, fill_model_yaml, with_policy
from enginebench.server.templates import FilledText, Kind, TemplateSet, fill_text, find_templates

_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".git*", ".ipynb_checkpoints")


@dataclass(frozen=True, slots=True)
class Filled:
    """One variable (or, of the LLM API's model, one key) of one model, with its value and where that comes from."""

    model: str
    variable: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class FilledRepository:
    """A repository that can be written, and is known."""

    templates: TemplateSet
    files: Mapping[str, str]  # path in the repository → text
    filled: tuple[Filled, ...]
    left: Mapping[str, tuple[str, ...]]  # model → variables that keep the version's default
    warnings: tuple[str, ...]

    def write(self, directory: Path) -> None:
        """Write it into ``directory`` (made when missing, models in it replaced). Raises ServerError."""
        try:
            for model in self.templates.configs:
                self._write_model(model, directory / model)
        except OSError as error:
            raise ServerError(f"The model repository {directory} cannot be written: {error}.") from error

    def as_json(self) -> dict[str, Any]:
        """The ``repository`` of a session in run.json."""
        return {
            "templates": str(self.templates.directory),
            "kind": self.templates.kind,
            "filled": [
                {"model": one.model, "variable": one.variable, "value": one.value, "source": one.source}
                for one in self.filled
            ],
            "left": {model: list(names) for model, names in self.left.items() if names},
            "warnings": list(self.warnings),
        }

    def _write_model(self, model: str, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        version = self.templates.directory / model / "1"
        if version.is_dir():
            shutil.copytree(version, directory / "1", ignore=_IGNORED)
        (directory / "1").mkdir(parents=True, exist_ok=True)  # an ensemble needs its version directory too, empty
        for name, text in self.files.items():
            if name.startswith(f"{model}/"):
                (directory.parent / name).write_text(text, encoding="utf-8")


def kind_for(build: Build) -> Kind:
    """The set of templates that serves ``build``."""
    return "llmapi" if build.kind == "pytorch" else "inflight_batcher_llm"


def fill_repository(build: Build, demand: Demand, templates: Path | None = None) -> FilledRepository:
    """Fill the templates for ``build``, from ``templates`` or a known place; writes nothing.

    Raises:
        ServerError: there are no templates, the build cannot be served, or a variable has no value that can work.
    """
    refuse(build)
    tokenizer = tokenizer_of(build)
    found = find_templates(kind_for(build), templates)
    if found.kind == "llmapi":
        return _fill_llmapi(found, build, demand, tokenizer)
    return _fill_inflight(found, build, demand, tokenizer)


def _fill_inflight(templates: TemplateSet, build: Build, demand: Demand, tokenizer: Path) -> FilledRepository:
    _check_overrides(demand.overrides, templates.variables())
    values = values_of(build, demand, tokenizer)
    if "${batching_strategy}" not in templates.configs["tensorrt_llm"]:  # 0.5
        policy = values["batch_scheduler_policy"]
        values["batch_scheduler_policy"] = Value(older_policy(policy.text), f"{policy.source}, in the words of 0.5")
    texts: dict[str, FilledText] = {}
    filled: list[Filled] = []
    for model, template in templates.configs.items():
        own = {**values, **_overrides_of(model, demand)}
        texts[model] = fill_text(template, {name: value.text for name, value in own.items()})
        filled += [Filled(model, name, own[name].text, own[name].source) for name in texts[model].filled]
    _check_complete(templates, texts)
    known = {(one.model, one.variable): one.value for one in filled}
    return FilledRepository(
        templates=templates,
        files={f"{model}/config.pbtxt": text.text for model, text in texts.items()},
        filled=tuple(filled),
        left={model: text.left for model, text in texts.items()},
        warnings=tuple(warnings_of(templates, build, demand, known)),
    )


def _fill_llmapi(templates: TemplateSet, build: Build, demand: Demand, tokenizer: Path) -> FilledRepository:
    model = "tensorrt_llm"
    template = (templates.directory / model / MODEL_YAML).read_text(encoding="utf-8")
    keys, text = fill_model_yaml(template, build, demand, tokenizer)
    filled = [Filled(model, key, value.text, value.source) for key, value in keys.items()]
    config, added = with_policy(templates.configs[model])
    if added:
        why = "decoupled of model.yaml is not read where Triton completes no configuration, and nothing streams then"
        filled.append(Filled(model, "model_transaction_policy", "decoupled: true", why))
    files = {f"{model}/config.pbtxt": config, f"{model}/{MODEL_YAML}": text}
    reuse = {(model, "enable_kv_cache_reuse"): "true" if demand.kv_cache_reuse else "false"}
    return FilledRepository(templates, files, tuple(filled), {}, tuple(warnings_of(templates, build, demand, reuse)))


def _overrides_of(model: str, demand: Demand) -> dict[str, Value]:
    return {name: Value(value, "--set") for (of, name), value in demand.overrides.items() if of == model}


def _check_overrides(overrides: Mapping[tuple[str, str], str], variables: Mapping[str, frozenset[str]]) -> None:
    for model, variable in overrides:
        if variable not in variables.get(model, ()):
            known = sorted(f"{of}.{name}" for of, names in variables.items() for name in names)
            close = difflib.get_close_matches(f"{model}.{variable}", known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}."
            raise ServerError(f"--set {model}.{variable} names no variable of these templates: {hint}")


def _check_complete(templates: TemplateSet, texts: Mapping[str, FilledText]) -> None:
    for model, text in texts.items():
        if text.missing:
            raise ServerError(
                f"{templates.directory / model}/config.pbtxt has ${{{text.missing[0]}}} outside quotes, which Triton "
                f"cannot read unfilled, and enginebench does not know it: give --set {model}.{text.missing[0]}=VALUE."
            )
