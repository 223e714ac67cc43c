"""What a tokenizer that does not open means, and what to do about it, in our words. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MISSING_CLASS = re.compile(r"Tokenizer class (\w+) does not exist")
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'|requires the (\w+) library|You need to install (\w+)")
# Setting what ChatGLM's tokenizers compute, calling their _pad with what it did not take then, or asking them for
# their vocabulary before they have read it: newer releases of transformers than their code was written for.
_NEWER_THAN_ITS_CODE = re.compile(
    r"can't set attribute|has no setter|unexpected keyword argument '(padding_side|pad_to_multiple_of)'"
    r"|has no attribute '(sp_tokenizer|tokenizer|special_tokens_decoder)'"
)


def explain(failure: Mapping[str, Any], directory: Path, launcher: Sequence[str]) -> str:
    """One sentence for a failure that ``hf_tokenizer`` reports: ``error``, ``message``, ``transformers``."""
    message, who = str(failure.get("message", "")), " ".join(launcher)
    where = f"The tokenizer in {directory}"
    if found := _MISSING_MODULE.search(message):
        name = next(group for group in found.groups() if group)
        return f"{where} needs {name}, which {who} does not have: install it there, or name another python=PATH."
    if found := _MISSING_CLASS.search(message):
        return (
            f"{where} is of class {found[1]}, which transformers does not have because it is Python of the "
            "checkpoint's own (for ChatGLM: tokenization_chatglm.py): copy that file beside tokenizer_config.json, "
            "read it, and pass --trust-remote-code."
        )
    if "trust_remote_code" in message:
        return (
            f"{where} runs Python of its own, and that is not allowed: read its *.py files, then pass "
            "--trust-remote-code."
        )
    if _NEWER_THAN_ITS_CODE.search(message):
        return _newer(where, message, failure.get("transformers"), who)
    if "offline" in message.lower() or "Can't load tokenizer" in message or "connect" in message.lower():
        return (
            f"{where} is not all there ({_one_line(message)}), and nothing is downloaded: put tokenizer.json or "
            "tokenizer.model, tokenizer_config.json and their *.py files into one directory and name it with "
            "--tokenizer DIR."
        )
    return (
        f"{where} fails under {who}: {failure.get('error')}: {_one_line(message)}; "
        "try it there with AutoTokenizer.from_pretrained."
    )


def _newer(where: str, message: str, version: str | None, who: str) -> str:
    what = "sets pad_token, which that code computes itself" if "pad_token" in message else "calls it in a newer way"
    return (
        f"{where} has Python of its own that is older than transformers {version or 'there'}, which {what} "
        f"({_one_line(message)}): install the release that its config.json names as transformers_version under {who}, "
        "or name another python=PATH."
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
