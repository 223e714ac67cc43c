"""A stand-in for the commands of TensorRT-LLM that build: ``convert`` (convert_checkpoint.py), ``trtllm-build``, and
``build.py`` of the old layout. Writes what they would, of the shape of a config.json, and takes the same options.

Run by path with an interpreter; ``FAKE_TRTLLM_FAIL=WORD`` makes a command line that holds WORD fail.
``FAKE_TRTLLM_LOG`` names a file that every run appends a line to.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import engine_dirs as made


def main() -> None:
    what, *rest = sys.argv[1:]
    with Path(os.environ["FAKE_TRTLLM_LOG"]).open("a") as log:
        log.write(f"{what} {' '.join(rest)}\n")
    print("[TensorRT-LLM] the stand-in builds nothing", flush=True)
    word = os.environ.get("FAKE_TRTLLM_FAIL")
    if word and any(word in part for part in sys.argv):
        print("CUDA out of memory", file=sys.stderr)
        sys.exit(3)
    {"convert": convert, "trtllm-build": build, "build.py": build_old}[what](rest)


def convert(arguments: list[str]) -> None:
    options = _parse(arguments, ["--model_dir", "--dtype", "--weight_only_precision"], ["--use_weight_only"])
    output = Path(options.output_dir)
    config = {"architecture": "ChatGLMForCausalLM", "dtype": options.dtype, "mapping": {}}
    config["quantization"] = {"quant_algo": "W8A16" if options.use_weight_only else None}
    (output / "config.json").write_text(json.dumps(config))


def build(arguments: list[str]) -> None:
    options = _parse(arguments, ["--checkpoint_dir", "--max_batch_size", "--gemm_plugin", "--kv_cache_type"], [])
    checkpoint = json.loads((Path(options.checkpoint_dir) / "config.json").read_text())
    config = made.current_config(max_batch_size=int(options.max_batch_size or 2048))
    made.quantised(config, checkpoint["quantization"]["quant_algo"])
    made.write_current(Path(options.output_dir), config)


def build_old(arguments: list[str]) -> None:
    options = _parse(arguments, ["--model_dir", "--model_name", "--dtype", "--max_batch_size"], ["--paged_kv_cache"])
    made.write_old(Path(options.output_dir), made.old_config(paged_kv_cache=options.paged_kv_cache))


def _parse(arguments: list[str], values: list[str], flags: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--output_dir", required=True)
    for name in values:
        parser.add_argument(name)
    for name in flags:
        parser.add_argument(name, action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
