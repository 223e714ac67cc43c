"""What a tokenizer that does not open means, and what to do about it, in our words. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A pattern in transformers' message, and ours; the first that matches counts. {found}: what the pattern caught.
_MEANINGS = (
    (
        r"No module named '([\w.]+)'|requires the (\w+) library|You need to install (\w+)",
        "{where} needs {found}, which {who} does not have: install it there, or name another python=PATH.",
    ),
    (
        r"Tokenizer class (\w+) does not exist",
        (
            "{where} is of class {found}, which transformers does not have because it is Python of the "
            "checkpoint's own (for ChatGLM: tokenization_chatglm.py): copy that file beside tokenizer_config.json, "
            "read it, and pass --trust-remote-code."
        ),
    ),
    (
        r"does not appear to have a file named (\S+\.py)\b",
        (
            "{where} is Python of the checkpoint's own, and {found} is missing: copy that file there from the "
            "checkpoint, read it, and pass --trust-remote-code."
        ),
    ),
    (
        "trust_remote_code",
        "{where} runs Python of its own, and that is not allowed: read its *.py files, then pass --trust-remote-code.",
    ),
    (
        r"'?(pad_token|eos_token|unk_token)\w*'? .*has no setter|can't set attribute '?(\w*)",
        (
            "{where} has Python of its own that computes {found}, which transformers {version} sets ({message}): "
            "install the release that its config.json names as transformers_version under {who}, or name "
            "another python=PATH."
        ),
    ),
    (
        # Calling ChatGLM's _pad with what it did not take then, or asking for its vocabulary before it was read.
        (
            r"unexpected keyword argument '(padding_side|pad_to_multiple_of)'"
            r"|has no attribute '(sp_tokenizer|tokenizer|special_tokens_decoder)'"
        ),
        (
            "{where} has Python of its own that is older than transformers {version} ({message}): install the release "
            "that its config.json names as transformers_version under {who}, or name another python=PATH."
        ),
    ),
    (
        r"(?i:offline|connect|Can't load tokenizer|Couldn't instantiate|does not appear to have)",
        (
            "{where} is not all there ({message}), and nothing is downloaded: put tokenizer.json or tokenizer.model, "
            "tokenizer_config.json and their *.py files into one directory and name it with --tokenizer DIR."
        ),
    ),
    ("", "{where} fails under {who}: {error}: {message}; try it there with AutoTokenizer.from_pretrained."),
)


def explain(failure: Mapping[str, Any], directory: Path, launcher: Sequence[str]) -> str:
    """One sentence for a failure that ``hf_tokenizer`` reports: ``error``, ``message``, ``transformers``."""
    message = " ".join(str(failure.get("message", "")).split())
    ours, match = next((ours, match) for pattern, ours in _MEANINGS if (match := re.search(pattern, message)))
    return ours.format(
        where=f"The tokenizer in {directory}",
        who=" ".join(launcher),
        found=next(filter(None, match.groups()), "a token"),
        message=message[:300],
        error=failure.get("error"),
        version=failure.get("transformers") or "there",
    )
