"""Which instruction sets this processor has, of those that inference kernels are written for."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from edgeclf_device.explain.explanation import Family, InstructionSet

_X86 = {
    "avx2": "8 floats or 32 bytes at once, what fast kernels begin with",
    "fma": "floats multiplied and added in one instruction",
    "avx512f": "16 floats at once",
    "avx512_vnni": "int8: four products summed in one instruction in place of three, 512 bits wide",
    "avx_vnni": "int8: the same, 256 bits wide",
    "amx_int8": "int8: products of whole tiles",
}
_ARM = {
    "asimd": "4 floats or 16 bytes at once (NEON), what fast kernels begin with",
    "asimddp": "int8: dot products of four bytes in one instruction",
    "i8mm": "int8: products of 2×8 by 8×2 matrices in one instruction",
    "asimdhp": "fp16: 8 half floats at once",
    "sve": "vectors of any length, for the kernels written for it",
}
_ALIASES = {"neon": "asimd"}
"""What 32-bit Arm kernels call it."""

INT8_PRODUCTS: dict[Family, tuple[str, ...]] = {
    "x86": ("avx512_vnni", "avx_vnni", "amx_int8"),
    "arm": ("asimddp", "i8mm"),
}
"""Any one of these makes int8 kernels clearly faster than float ones."""


def family_of(machine: str) -> Family:
    """The family of processors that ``platform.machine()`` names."""
    name = machine.lower()
    if name in {"x86_64", "amd64", "i386", "i686"}:
        return "x86"
    return "arm" if name.startswith(("aarch64", "arm")) else "other"


def instruction_sets(cpuinfo: str, family: Family) -> tuple[InstructionSet, ...] | None:
    """The instruction sets that matter, each present or not; None where ``cpuinfo`` does not tell.

    The words are the kernel's: ``flags`` on x86 (arch/x86/include/asm/cpufeatures.h), ``Features`` on Arm
    (Documentation/arch/arm64/elf_hwcaps.rst). What VNNI saves is told by Intel's intrinsics guide at
    ``_mm256_dpbusd_epi32``: it replaces VPMADDUBSW, VPMADDWD and VPADDD. Only what all cores have counts.

    Args:
        cpuinfo: content of /proc/cpuinfo.
        family: of the processor.
    """
    known = {"x86": _X86, "arm": _ARM}.get(family)
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    cores = [set(words.split()) for key, _, words in lines if key.strip() in ("flags", "Features")]
    if known is None or not cores:
        return None
    common = set.intersection(*cores)
    there = common | {_ALIASES[word] for word in common & set(_ALIASES)}
    return tuple(InstructionSet(name=name, speeds_up=use, present=name in there) for name, use in known.items())


def busy_ticks(stat: str, cores: AbstractSet[int]) -> int:
    """Clock ticks that ``cores`` have worked since the system started, for whatever program.

    Args:
        stat: content of /proc/stat: user, nice, system, idle, iowait, irq, softirq and steal of each core
            (proc_stat(5)); empty gives 0.
        cores: their numbers.
    """
    total = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            total += user + nice + system + irq + softirq + steal
    return total
