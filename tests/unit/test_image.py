"""How the tritonserver of an image is found, and which arguments it gets. Starts nothing."""

import os
from pathlib import Path

import pytest

from enginebench.errors import ServerError
from enginebench.server.image import MPIRUN, SERVER, ImageTriton, find_image
from enginebench.server.installation import Place
from tests.support import fake_tritonserver

BINARY = Path("/opt/tritonserver/bin/tritonserver")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("enginebench-1a", tmp_path, tmp_path / "models", 9000, 9002, tmp_path / "tritonserver.log")


def ranks_of(command: list[str]) -> list[list[str]]:
    """The words of each rank, after mpirun's."""
    ranks: list[list[str]] = [[]]
    for word in command[1:]:
        if word == ":":
            ranks.append([])
        else:
            ranks[-1].append(word)
    return ranks


def test_one_rank_without_mpi_is_the_server_alone(place: Place) -> None:
    command = list(ImageTriton(BINARY).command(place))
    assert command[:3] == [str(BINARY), "--id=enginebench-1a", f"--model-repository={place.repository}"]
    assert command[-1] == "--backend-config=python,shm-region-prefix-name=enginebench-1ar0_"
    assert {"--http-port=9000", "--metrics-port=9002", "--disable-auto-complete-config"} < set(command)


def test_one_rank_under_mpirun_writes_to_the_one_log(place: Place) -> None:
    program = ImageTriton(BINARY, mpirun="/usr/bin/mpirun")
    assert list(program.command(place))[:4] == ["/usr/bin/mpirun", "-n", "1", str(BINARY)]
    assert program.logs(place) == [place.log]


def test_ranks_beyond_the_first_load_the_core_alone(place: Place) -> None:
    program = ImageTriton(BINARY, mpirun="mpirun", ranks=3)
    ranks = ranks_of(list(program.command(place)))
    assert [words[:2] for words in ranks] == [["-n", "1"]] * 3
    only_core = ["--model-control-mode=explicit", "--load-model=tensorrt_llm"]
    assert [[word for word in words if word in only_core] for words in ranks] == [[], only_core, only_core]
    memory = [words[-1] for words in ranks]
    assert memory == [f"--backend-config=python,shm-region-prefix-name=enginebench-1ar{rank}_" for rank in range(3)]


def test_each_of_several_ranks_has_a_log(place: Place) -> None:
    program = ImageTriton(BINARY, mpirun="mpirun", ranks=2)
    logs = [place.log.with_name(f"tritonserver-rank{rank}.log") for rank in range(2)]
    assert program.logs(place) == [place.log, *logs]
    for words, log in zip(ranks_of(list(program.command(place))), logs, strict=True):
        assert words[2:7] == ["/bin/sh", "-c", words[4], "sh", str(log)]
        assert words[7] == str(BINARY)


def test_nothing_is_reachable_from_elsewhere(place: Place) -> None:
    for ranks in (1, 2):
        for words in ranks_of(["", *ImageTriton(BINARY, "mpirun", ranks).command(place)]):
            assert "--http-address=127.0.0.1" in words
            assert "--metrics-address=127.0.0.1" in words


def test_a_server_elsewhere_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake_tritonserver.write(tmp_path, "tensorrtllm")
    monkeypatch.setenv(SERVER, str(program))
    monkeypatch.setenv(MPIRUN, "no-such-mpirun")
    found = find_image(1, backend="tensorrtllm")
    assert (found.binary, found.mpirun, found.ranks) == (program, None, 1)


def test_several_ranks_want_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, str(fake_tritonserver.write(tmp_path, "tensorrtllm")))
    monkeypatch.setenv(MPIRUN, "no-such-mpirun")
    with pytest.raises(ServerError, match="needs 2 ranks, and there is no no-such-mpirun"):
        find_image(2, backend="tensorrtllm")


def test_the_llm_api_starts_its_ranks_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, str(fake_tritonserver.write(tmp_path, "python")))
    found = find_image(2, backend="python", with_mpi=False)
    assert (found.mpirun, found.ranks) == (None, 1)


def test_an_image_without_tensorrt_llm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, str(fake_tritonserver.write(tmp_path, "python")))
    with pytest.raises(ServerError, match=r"has no backend tensorrtllm .*trtllm-python-py3"):
        find_image(1, backend="tensorrtllm")


def test_the_stubs_find_the_packages_of_the_builds_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, str(fake_tritonserver.write(tmp_path, "tensorrtllm")))
    monkeypatch.setenv("PATH", os.defpath)
    venv = tmp_path / "venv" / "bin"
    for with_mpi in (True, False):
        other = find_image(1, backend="tensorrtllm", with_mpi=with_mpi, python=str(venv / "python"))
        assert other.prepare(tmp_path)["PATH"] == f"{venv}{os.pathsep}{os.defpath}"
        ours = find_image(1, backend="tensorrtllm", with_mpi=with_mpi)
        assert ours.prepare(tmp_path)["PATH"] == os.defpath


def test_no_server_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER, str(tmp_path / "none"))
    with pytest.raises(ServerError, match=r"no tritonserver here .*none is no program.*--triton-url.*--path direct"):
        find_image(1, backend="tensorrtllm")
