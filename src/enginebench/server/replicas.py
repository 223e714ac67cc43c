"""Whether several Triton servers are replicas of one deployment, going by what they say of themselves over HTTP.

What a request would notice is an error, before anything is measured; what may only make one of them slower, or answer
otherwise, is a check that failed. That they hold the same engine cannot be seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enginebench.errors import ServerError
from enginebench.server.plain_http import fetch_json
from enginebench.server.preflight import Check

BEHIND = ("preprocessing", "tensorrt_llm", "postprocessing")
"""Models that may stand behind the one that is asked."""

OWN = ("gpus", "gpu_device_ids")
"""Settings that replicas on one host do not share."""

MOST_SHOWN = 3
VERSION = "the version of Triton"

Facts = Mapping[str, str]


def require_replicas(urls: Sequence[str], model: str) -> None:
    """Raise ServerError when a request to ``model`` would not mean the same at every one of ``urls``."""
    first = _interface(urls[0], model)
    for url in urls[1:]:
        if found := _differences(first, _interface(url, model)):
            what, one, other = found[0]
            raise ServerError(
                f"{urls[0]} and {url} are no replicas, for their model {model!r} differs in {what} ({one} and "
                f"{other}): give --triton-url servers of one deployment."
            )


def check_replicas(urls: Sequence[str], model: str) -> Check:
    """Hold the versions and configurations of the servers at ``urls`` against those of the first.

    Unverified where nothing but places of files differ: the same files may lie there.
    """
    first = _settings(urls[0], model)
    found = [(url, *each) for url in urls[1:] for each in _differences(first, _settings(url, model))]
    if not found:
        detail = f"All {len(urls)} servers have Triton {first[VERSION]} and the same configuration."
        return Check("replicas", "verified", detail)
    places = [each for each in found if all(value.startswith("/") for value in each[2:])]
    shown = [each for each in found if each not in places] or places
    words = [f"{what} is {other} at {url} and {one} at {urls[0]}" for url, what, one, other in shown[:MOST_SHOWN]]
    more = f"; and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    return Check("replicas", "unverified" if shown is places else "failed", f"{'; '.join(words)}{more}.")


def _interface(url: str, model: str) -> Facts:
    """What a request to ``model`` depends on."""
    metadata, config = fetch_json(f"{url}/v2/models/{model}"), fetch_json(f"{url}/v2/models/{model}/config")
    decoupled = bool((config.get("model_transaction_policy") or {}).get("decoupled"))
    facts = {"max_batch_size": str(config.get("max_batch_size", 0)), "decoupled": str(decoupled)}
    for kind in ("inputs", "outputs"):
        for tensor in metadata.get(kind, ()):
            name = f"the {kind.removesuffix('s')} {tensor['name']}"
            facts[name] = f"{tensor.get('datatype')} {tensor.get('shape')}"
    return facts


def _settings(url: str, model: str) -> Facts:
    """Everything that the server at ``url`` says of itself, of ``model`` and of the models behind it."""
    facts = {VERSION: str(_told(f"{url}/v2").get("version"))}
    for name in dict.fromkeys((model, *(() if model == "tensorrt_llm" else BEHIND))):
        facts |= dict(_leaves(_told(f"{url}/v2/models/{name}/config"), name))
    return facts


def _told(url: str) -> Mapping[str, Any]:
    """The answer; empty where there is none, such as for a model that is not there."""
    try:
        return fetch_json(url)
    except ServerError:
        return {}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key in value.keys() - set(OWN):
            yield from _leaves(value[key], f"{name}.{key}")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _leaves(each, f"{name}[{place}]")
    else:
        yield name, str(value)


def _differences(one: Facts, other: Facts) -> list[tuple[str, str, str]]:
    """What is not the same in both, with both values."""
    names = sorted(one.keys() | other.keys(), key=lambda name: (name not in one, name))
    pairs = [(name, one.get(name, "not there"), other.get(name, "not there")) for name in names]
    return [(name, mine, theirs) for name, mine, theirs in pairs if mine != theirs]
