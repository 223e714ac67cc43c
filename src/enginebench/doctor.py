"""``enginebench doctor``: what this machine has, what would drive a build, and what would not work.

Looks into the build's own interpreter in a child process. With a build it also runs a canary of two tokens, and keeps
everything as a bundle for a bug report. It repairs and sets nothing; what an operator could set, it says.
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import enginebench
from enginebench.builds.build import Build
from enginebench.builds.facts import build_facts
from enginebench.environment import environment
from enginebench.errors import EnginebenchError, ServerError
from enginebench.files import write_aside, writing
from enginebench.measure.gpu_doctor import gpu_hazards, host_hazards
from enginebench.measure.gpu_trace import Gpus
from enginebench.measure.nvml import NvmlReader
from enginebench.measure.worker_process import PACKAGE_BOOTSTRAP, Worker
from enginebench.plan.load import Batch
from enginebench.plan.requests import Request, Sampling
from enginebench.run.attached import OwnServer
from enginebench.run.direct import check_gpus, runtime_of, visible_gpus, world_of
from enginebench.run.managed import prepare
from enginebench.server.embedded import find_embedded

INSPECT_TIMEOUT_S = 300.0  # tensorrt_llm takes its time to import
CANARY_STALL_S = 120.0
OWN_SERVER = OwnServer()
CANARY = Request(0, "", (1, 2, 3), 2, True, Sampling())

_INSPECT = f"{PACKAGE_BOOTSTRAP}from enginebench.runtimes.tensorrt_llm.inspection import main\nmain()\n"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``ok`` None: a fact that is neither good nor bad, ``spoils``: measured, it would be."""

    section: str
    text: str
    ok: bool | None = None
    spoils: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, as lines and as data."""

    findings: Sequence[Finding]
    data: dict[str, Any]

    @property
    def works(self) -> bool:
        """Whether nothing was found that keeps a build from running."""
        return all(finding.ok is not False for finding in self.findings)

    def text(self) -> str:
        """For a terminal: sections with a mark before each line."""
        lines: list[str] = []
        section = ""
        for finding in self.findings:
            if finding.section != section:
                section = finding.section
                lines += ["", section] if lines else [section]
            mark = "~" if finding.spoils else {None: " ", True: "+", False: "!"}[finding.ok]
            lines.append(f"  {mark} {finding.text}")
        return "\n".join(lines) + "\n"


def examine(build: Build | None, scratch: Path, own: OwnServer = OWN_SERVER) -> Report:
    """Look at the machine, and at ``build`` if there is one; logs of what is started land in ``scratch``.

    ``own``: what a server that would be started for the build is to be like.
    """
    found = environment()
    interpreter = build.launcher if build else (sys.executable,)
    options = runtime_of(build)[1] if build and build.kind != "reference" else None
    inside = inspect_interpreter(interpreter, options)
    findings = [
        *_machine(found),
        *_hazards(NvmlReader()),
        *(_triton() if options is None else ()),  # what a build of TensorRT-LLM is served by is said with it
        *_interpreter(inside, needed=options is not None),
    ]
    data: dict[str, Any] = {"environment": found, "interpreter": inside, "build": None, "canary": None, "server": None}
    if build:
        canary, server = run_canary(build, scratch, found["gpus"]), check_server(build, found["gpus"], own)
        findings += [*_build(build, inside, canary), *_server(server, asked=own.fills_templates)]
        data |= {"build": build_facts(build), "canary": canary, "server": server}
    return Report(findings, data)


def inspect_interpreter(launcher: Sequence[str], options: dict[str, Any] | None) -> dict[str, Any]:
    """What the interpreter has; ``error`` says when it cannot even be asked."""
    place = str(Path(enginebench.__file__).parent)
    command = [*launcher, "-c", _INSPECT, place, json.dumps(options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSPECT_TIMEOUT_S, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{' '.join(launcher)} cannot be asked ({error})"}
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"error": f"{' '.join(launcher)} ended with status {done.returncode} ({last[0]})"}
    return found


def run_canary(build: Build, scratch: Path, gpus: Sequence[Any] | None = None) -> dict[str, Any]:
    """Load ``build`` as a run would and ask for two tokens; ``error`` is None when they came. ``gpus``: the host's."""
    runtime, options = runtime_of(build)
    log = scratch / "canary.log"
    try:
        check_gpus(build, visible_gpus(build, gpus))
        worker = Worker.start(build.launcher, log, world=world_of(build))
        try:
            facts = worker.open(runtime, options)
            worker.prepare([CANARY], load=Batch(1), round_index=0, warmup=False, stall_timeout_s=CANARY_STALL_S)
            worker.run()
            record = worker.fetch()
        finally:
            worker.close()
    except EnginebenchError as error:
        return {"error": str(error), "facts": None, "token_ids": None}
    (outcome,), (why,) = record.requests.outcome, record.requests.error
    error_text = None if outcome == "ok" else f"the canary ended with {outcome} {why}".strip()
    return {"error": error_text, "facts": dict(facts), "token_ids": record.chunks.token_ids.tolist()}


def check_server(build: Build, gpus: Sequence[Any] | None = None, own: OwnServer = OWN_SERVER) -> dict[str, Any]:
    """Whether a Triton server for ``build`` could be filled and started; writes and starts nothing.

    ``error``: why not, None when it could; ``repository``: what would be filled, of TensorRT-LLM builds.
    """
    try:
        prepared = prepare(build, 1, own, gpus=visible_gpus(build, gpus))
        program = prepared.program or find_embedded()
    except EnginebenchError as error:
        return {"error": str(error), "program": None, "repository": None}
    return {"error": None, "program": str(program.binary), "repository": prepared.as_json()}


def write_bundle(report: Report, scratch: Path, place: Path) -> None:
    """Write report, data and logs as a zip file. Raises RunError when it cannot be written."""

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("report.txt", report.text())
            bundle.writestr("report.json", json.dumps(report.data, indent=2, default=str))
            for log in sorted(scratch.glob("*.log")):
                bundle.write(log, log.name)

    with writing(place):
        write_aside(place, write)


def _machine(found: dict[str, Any]) -> list[Finding]:
    gpus = [f"GPU {gpu.get('name')}, driver {gpu.get('driver', 'unknown')}" for gpu in found["gpus"] or []]
    return [
        Finding("Machine", f"{found['os']}, kernel {found['kernel']}, {found['cpu']['usable_cores']} cores"),
        Finding("Machine", f"Python {found['python']} ({found['python_executable']})"),
        *(Finding("Machine", text) for text in gpus or [str(found["gpu_reason"])]),
    ]


def _hazards(gpus: Gpus) -> list[Finding]:
    """What would spoil a measurement, and what an operator could set."""
    spoiling = [*gpu_hazards(gpus), *host_hazards()]
    section = "Before measuring"
    if not spoiling:
        return [Finding(section, "nothing was found that would spoil a measurement", ok=True)]
    return [Finding(section, text, spoils=True) for text in spoiling]


def _triton() -> list[Finding]:
    try:
        find_embedded()
    except ServerError as error:
        return [Finding("Triton", str(error))]
    return [Finding("Triton", "the embedded server can be started", ok=True)]


def _interpreter(inside: dict[str, Any], *, needed: bool) -> list[Finding]:
    if "packages" not in inside:
        return [Finding("Interpreter", inside["error"], ok=False)]
    section = f"Interpreter {inside['executable']}"
    packages = ", ".join(f"{name} {version or '-'}" for name, version in inside["packages"].items())
    findings = [Finding(section, f"Python {inside['python']}: {packages}")]
    if inside["error"]:
        return [*findings, Finding(section, inside["error"], ok=False if needed else None)]
    signatures = inside["signatures"]
    against = f"tensorrt_llm {signatures['installed']}, held against what is known of {signatures['held_against']}"
    changed = [Finding(section, each) for each in signatures["differences"]]
    summary = f"{against}: {len(changed) or 'no'} differences"
    return [*findings, Finding(section, summary, ok=None if changed else True), *changed]


def _build(build: Build, inside: dict[str, Any], canary: dict[str, Any]) -> list[Finding]:
    section = f"Build {build.name}"
    about = f"{build.directory}: {build.kind} {build.version or ''} {build.architecture} {build.dtype}"
    findings = [Finding(section, " ".join(about.split()))]
    if build.inflight_off:
        findings.append(Finding(section, f"in-flight batching cannot be used: {build.inflight_off}"))
    if choice := inside.get("choice"):
        text = f"adapter {choice['adapter'] or 'none'}: {choice['why']}"
        findings.append(Finding(section, text, ok=choice["adapter"] is not None))
    if canary["error"]:
        return [*findings, Finding(section, canary["error"], ok=False)]
    return [*findings, Finding(section, f"a canary of two tokens came back: {canary['token_ids']}", ok=True)]


def _server(server: dict[str, Any], *, asked: bool) -> list[Finding]:
    """``asked``: templates or variables were given, so that a server is wanted; else the direct path may be enough."""
    section = "Server paths"
    if server["error"]:
        return [Finding(section, f"no server could be started: {server['error']}", ok=False if asked else None)]
    repository = server["repository"]
    of = f" with the templates in {repository['templates']}" if repository else ""
    warnings = [Finding(section, warning) for warning in (repository or {}).get("warnings", ())]
    return [Finding(section, f"{server['program']} could be started for it{of}", ok=True), *warnings]
