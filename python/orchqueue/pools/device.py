"""The device class of this host: what the numbers of an engine depend on beside its build and its flags."""

from __future__ import annotations

import platform
from pathlib import Path

#: Instruction sets among which llama.cpp's kernels choose; two hosts that agree in these run the same code.
_KERNEL_FEATURES = frozenset(
    """
    sse3 pni ssse3 sse4_1 sse4_2 avx avx2 avx_vnni f16c fma bmi2
    avx512f avx512bw avx512cd avx512dq avx512vl avx512vbmi avx512_vnni avx512_bf16 avx512_fp16
    amx_tile amx_int8 amx_bf16
    asimd asimdhp asimddp asimdrdm i8mm bf16 sve sve2 svei8mm svebf16 sme
    """.split()
)


def device_class(cpuinfo: str | None = None, machine: str | None = None) -> str:
    """`cpu:<architecture>:<features>`; the features are empty where the system does not tell them."""
    if cpuinfo is None:
        cpuinfo = _read_cpuinfo()
    present = _KERNEL_FEATURES.intersection(_flags(cpuinfo))
    return f"cpu:{machine or platform.machine()}:{','.join(sorted(present))}"


def _read_cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _flags(cpuinfo: str) -> set[str]:
    """Features of the first processor: `flags` on x86, `Features` on ARM."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
