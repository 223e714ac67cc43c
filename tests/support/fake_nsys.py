#!/usr/bin/env python3
"""Stands for Nsight Systems: runs what it is given, says what nsys says, and leaves a report and its tables.

``FAKE_NSYS_BROKEN=report``: leaves no report. ``stats``: makes no table. Its arguments are kept beside the report.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

KERNELS = """Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
60.0,6000000,300,20000.0,20000.0,20000,20000,0.0,"sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64"
30.0,3000000,100,30000.0,30000.0,30000,30000,0.0,"void mmha::masked_multihead_attention_kernel<(int)128>(Params)"
10.0,1000000,100,10000.0,10000.0,10000,10000,0.0,"void generalRmsNorm<__half>(const T1 *, const T1 *)"
"""
MEMORY = """Time (%),Total Time (ns),Count,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Operation
100.0,500000,20,25000.0,25000.0,25000,25000,0.0,[CUDA memcpy Host-to-Device]
"""
GPU_TRACE = """Start (ns),Duration (ns),CorrId,Device,Ctx,Strm,Name
1000000,4000000,1,NVIDIA H100 (0),1,7,a kernel
5040000,3000000,2,NVIDIA H100 (0),1,7,a kernel
9040000,1000000,3,NVIDIA H100 (0),1,7,a kernel
"""
NVTX = """Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Style,Range
100.0,12000000,1,12000000.0,12000000.0,12000000,12000000,0.0,PushPop,:enginebench round
"""
PUSHPOP = """Start (ns),End (ns),Duration (ns),DurChild (ns),DurNonChild (ns),Name,PID,TID,Lvl,NumChild
500000,12500000,12000000,0,12000000,:enginebench round,1,1,0,0
"""
STARTEND = """Start (ns),End (ns),Duration (ns),Name,PID,RangeId
600000,6000000,5400000,:request 0: to the first token,1,1
6000000,12000000,6000000,:request 0: decode,1,2
"""
TABLES = {
    "cuda_gpu_kern_sum": KERNELS,
    "cuda_gpu_mem_time_sum": MEMORY,
    "cuda_gpu_trace": GPU_TRACE,
    "nvtx_sum": NVTX,
    "nvtx_pushpop_trace": PUSHPOP,
    "nvtx_startend_trace": STARTEND,
}
BROKEN = os.environ.get("FAKE_NSYS_BROKEN")


def main() -> int:
    verb, *arguments = sys.argv[1:]
    flags = [each for each in arguments if each.startswith("--")]
    options = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
    first = next((at for at, each in enumerate(arguments) if not each.startswith("--")), len(arguments))
    inner = arguments[first:]
    if verb == "stats":
        return stats(options, flags)
    if verb in ("profile", "launch"):
        print("Capture range started in the application.", flush=True)  # what nsys says goes to standard output
        code = subprocess.run(inner, check=False).returncode
        if verb == "profile":
            write(options, inner)
        return code
    if verb == "stop":
        write({"output": (Path(sys.argv[0]).parent / options["session"]).read_text()}, ["stopped"])
    if verb == "start":
        (Path(sys.argv[0]).parent / options["session"]).write_text(options["output"])
    return 0


def write(options: dict[str, str], inner: list[str]) -> None:
    if BROKEN != "report":
        Path(f"{options['output']}.nsys-rep").write_text(json.dumps({"argv": sys.argv, "ran": inner}))


def stats(options: dict[str, str], flags: list[str]) -> int:
    if BROKEN == "stats":
        print("ERROR: the report was made by a newer version.", file=sys.stderr)
        return 1
    for flag in flags:
        if flag.startswith("--report="):
            name = flag.removeprefix("--report=")
            Path(f"{options['output']}_{name}.csv").write_text(TABLES[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
