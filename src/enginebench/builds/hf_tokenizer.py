"""The child's side of a Hugging Face tokenizer: run as ``python -c SOURCE DIRECTORY trust|distrust`` by the build's
own interpreter, which need not have enginebench. Standard library and transformers alone.

One JSON object a line, a question on standard input and its answer on what was standard output; it ends with its
input. Nothing is downloaded: what is not in the directory is an error.
"""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


def main() -> None:
    """Open the tokenizer, say so, then answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints is no answer
    sys.path[:] = [entry for entry in sys.path if entry]  # a folder "transformers" where the harness runs is not it
    directory, trust = sys.argv[1], sys.argv[2] == "trust"
    try:
        tokenizer = open_tokenizer(directory, trust)
    except BaseException as error:  # SystemExit and the like included: the harness wants to know
        _say(answers, _failure(error))
        return
    _say(answers, _facts(tokenizer))
    for line in sys.stdin.buffer:
        try:
            answer = _answer(tokenizer, json.loads(line))
        except Exception as error:
            answer = _failure(error)
        _say(answers, answer)


def open_tokenizer(directory: str, trust: bool) -> Any:
    """Load the tokenizer from ``directory``, running its own Python only with ``trust``."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust)


def plain_ids(tokenizer: Any, wanted: int) -> list[int]:
    """Up to ``wanted`` ids whose text is printable, distinct, and encoded back to them also among its like.

    Visits the vocabulary in strides, so that the same ids are found on every machine and from all parts of it.
    """
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids)
    stride = max(1, int(size * 0.618))
    while math.gcd(stride, size) != 1:
        stride += 1
    texts: dict[str, int] = {}
    for index in range(size):
        token_id = index * stride % size
        text = None if token_id in special else _plain_text(tokenizer, token_id)
        if text is not None and text not in texts:
            texts[text] = token_id
            if len(texts) == wanted:
                break
    return sorted(texts.values())


def _plain_text(tokenizer: Any, token_id: int) -> str | None:
    try:
        text = _decode(tokenizer, [token_id])
        if not text.strip() or not text.isprintable() or "\ufffd" in text:
            return None
        three = [token_id] * 3
        return text if _encode(tokenizer, _decode(tokenizer, three)) == three else None
    except Exception:  # a hole in the vocabulary
        return None


def _encode(tokenizer: Any, text: str) -> list[int]:
    return [int(token_id) for token_id in tokenizer.encode(text, add_special_tokens=False)]


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _answer(tokenizer: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    if question["op"] == "encode":
        return {"ids": _encode(tokenizer, question["text"])}
    if question["op"] == "decode":
        return {"text": _decode(tokenizer, question["ids"])}
    if question["op"] == "plain_ids":
        return {"ids": plain_ids(tokenizer, question["wanted"])}
    raise ValueError(f"unknown operation {question['op']!r}")


def _facts(tokenizer: Any) -> dict[str, Any]:
    return {"class": type(tokenizer).__name__, "vocabulary": len(tokenizer), "transformers": _transformers()}


def _failure(error: BaseException) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": str(error), "transformers": _transformers()}


def _transformers() -> Any:
    return getattr(sys.modules.get("transformers"), "__version__", None)


def _say(stream: TextIO, answer: Mapping[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
