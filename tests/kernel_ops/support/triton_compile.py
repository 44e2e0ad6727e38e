"""Compile the Triton kernels for chips that are not here, and read what they take: registers, spills, shared memory.

Run as a script (a process of its own, without TRITON_INTERPRET): one JSON row a kernel and tiling, or ``--table``
for Markdown. The arguments are
those that the host code passes for a typical call (every statistic of a default run), caught on their way to the launcher, so that what is
compiled here is what a GPU would be given. Figures come from the compiled objects: ``cuobjdump --dump-resource-usage`` from Triton's own
package for NVIDIA, the metadata of the code object for AMD.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from interp_kernels import Collect, ColumnCollect, Mask
from interp_kernels.attention import api as attention_api
from interp_kernels.columns import api as columns_api
from interp_kernels.spec.problem import Problem
from interp_kernels.visibility import Span

SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.int8: "i8",
    torch.int32: "i32",
    torch.int64: "i64",
}
LAUNCHERS = (
    "attention.triton_lowering",
    "attention.triton_topk",
    "attention.triton_ops",
    "columns.triton_received",
    "columns.triton_diagonals",
    "columns.triton_histogram",
    "entries.triton_kernel",
    "triton_pool",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one compiled kernel takes. `spills`: bytes of stack on NVIDIA; on AMD spilled vector registers plus bytes of scratch.

    `scalar_spills`: AMD's scalar registers kept in lanes of vector registers, which costs a move and no memory. `shared` in bytes.
    """

    kernel: str
    chip: str
    dim: int
    dtype: str
    tiling: str
    registers: int
    spills: int
    scalar_spills: int
    shared: int
    seconds: float

    @property
    def fits(self) -> bool:
        """No spill, and shared memory within the chip's limit."""
        return self.spills == 0 and self.shared <= SHARED_LIMIT[self.chip]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One caught launch: the kernel, its row in the table of tilings, padded head dim, dtype, arguments by name."""

    kernel: object
    name: str
    width: int
    dtype: torch.dtype
    args: dict


def launches(dim: int, dtype: torch.dtype, only: str = "") -> list[Launch]:
    """Every launch of a run over a long causal prompt with grouped heads and all default statistics: forward,
    decode, backward, map sweeps."""
    caught: list[Launch] = []

    def catch(kernel, name, grid, width, dtype, args):
        caught.append(Launch(kernel=kernel, name=name, width=width, dtype=dtype, args=dict(args)))

    n, heads, key_heads = 256, 4, 2
    q = torch.zeros(1, heads, n, dim, dtype=dtype)
    k = torch.zeros(1, key_heads, n, dim, dtype=dtype)
    lse = torch.zeros(1, heads, n)
    flags = torch.zeros(4, n, dtype=torch.bool)
    ids = torch.zeros(2, n, dtype=torch.int32)
    wish = Collect(
        entropy=True, row_max=True, logit_moments=True, prob_square=True, distance=True, key_sets=flags, rest=flags[0],
        match=(ids, ids), windows=(16, 64, 256), offsets=(0, 1),
    )  # fmt: skip
    options = {"mask": Mask.causal(), "scale": None, "softcap": None, "sink_logits": None, "edit": None}
    with ExitStack() as stack:
        modules = {m: importlib.import_module(f"interp_kernels.{m}") for m in LAUNCHERS}
        for module in modules.values():
            stack.enter_context(mock.patch.object(module, "launch", catch))
        forward = modules["attention.triton_lowering"].forward
        forward(attention_api.attention_call(q, k, k, collect=wish, **options), splits=1)
        forward(attention_api.attention_call(q, k, k, collect=Collect(entropy=True), **options), splits=1)
        decode = replace(wish, match=(ids[:, :2], ids))
        forward(attention_api.attention_call(q[:, :, :2], k, k, collect=decode, **options), splits=4)
        forward(attention_api.attention_call(q, k, k, collect=Collect(topk=8), **options), splits=1)
        del caught[-2]
        codec = importlib.import_module("interp_kernels.triton_codec")
        problem = Problem.of(q, k, **options)
        tensors, spec = codec.encode(problem, Collect(entropy=True))
        planes = torch.zeros(2, *lse.shape)
        backward = modules["attention.triton_ops"].attention_backward_op._init_fn
        backward(q, k, k, tensors, spec, planes, q, lse, lse)
        rows = torch.zeros(1, 4, n, dtype=torch.bool)
        everything = ColumnCollect(diagonals=True, block=64, histogram=True)
        call = columns_api.ColumnsCall(problem=problem, lse=lse, rows=rows, collect=everything)
        importlib.import_module("interp_kernels.columns.triton_impl").run(call)
        pool = modules["triton_pool"]
        pool.cells(problem, lse, Span(0, n), Span(0, n))
        caught[-1] = replace(caught[-1], name="pool_fwd (cells)")
        modules["entries.triton_kernel"].weights_at(problem, lse, torch.arange(n), torch.arange(n))
    return [c for c in caught if only in c.name]


def source(launch: Launch, sizes: dict[str, int]) -> ASTSource:
    """The launch as Triton's compiler takes it: types, constants, and the divisibility that a real launch would find."""
    values = {**launch.args, **sizes}
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(launch.kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[(place,)] = value
        else:
            signature[parameter.name] = _typed(value, (place,), constants, attributes)
    unknown = set(values) - set(signature)
    assert not unknown, f"{launch.name}: arguments that the kernel does not take: {sorted(unknown)}"
    return ASTSource(launch.kernel, signature, constants, attributes)


def _typed(value, path, constants, attributes):
    if isinstance(value, tuple):
        parts = [_typed(x, (*path, index), constants, attributes) for index, x in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if isinstance(value, torch.Tensor) or value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return f"*{NAMES[value.dtype]}" if isinstance(value, torch.Tensor) else "i32"


def compiled(launch: Launch, chip: str, dim: int, tiling) -> Row:
    """Compile one launch with one tiling for one chip."""
    from interp_kernels.triton_tiles import constants

    target = GPUTarget("hip", chip, 64) if chip.startswith("gfx") else GPUTarget("cuda", int(chip[3:]), 32)
    options = {"num_warps": tiling.warps, "num_stages": tiling.stages, "enable_fp_fusion": True}
    start = time.perf_counter()
    binary = triton.compile(source(launch, constants(launch.kernel, tiling)), target=target, options=options)
    seconds = time.perf_counter() - start
    registers, spills, scalar_spills = _amd(binary) if chip.startswith("gfx") else _nvidia(binary)
    return Row(
        kernel=launch.name,
        chip=chip,
        dim=dim,
        dtype=NAMES[launch.dtype],
        tiling=f"{tiling.BM}x{tiling.BN} w{tiling.warps} s{tiling.stages}",
        registers=registers,
        spills=spills,
        scalar_spills=scalar_spills,
        shared=binary.metadata.shared,
        seconds=round(seconds, 1),
    )


def _nvidia(binary) -> tuple[int, int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        said = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, f"cuobjdump said nothing of registers: {said}"
    local = re.search(r"LOCAL:(\d+)", said)
    return int(found[1]), int(found[2]) + (int(local[1]) if local else 0), 0


def _amd(binary) -> tuple[int, int, int]:
    text = binary.asm["amdgcn"]

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", text)
        assert found, f"the code object's metadata has no {name}"
        return int(found[1])

    # private_segment_fixed_size says whether memory is touched; spilled scalar registers alone stay in lanes of vector registers.
    return (
        field("vgpr_count"),
        field("vgpr_spill_count") + field("private_segment_fixed_size"),
        field("sgpr_spill_count"),
    )


def rows(chips: list[str], dims: list[int], dtypes: list[str], only: str, first: bool) -> Iterator[Row]:
    """Every kernel on every chip, with every tiling of its list or the first."""
    from interp_kernels.triton_tiles import tilings

    for dim in dims:
        for dtype in dtypes:
            for launch in launches(dim, DTYPES[dtype], only):
                for chip in chips:
                    platform = "hip" if chip.startswith("gfx") else "cuda"
                    listed = tilings(launch.name.split(" ")[0], platform, launch.width, launch.dtype)
                    for tiling in listed[:1] if first else listed:
                        yield compiled(launch, chip, dim, tiling)


def main() -> None:
    """Print a row a kernel."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--chips", nargs="+", default=list(SHARED_LIMIT), choices=list(SHARED_LIMIT))
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--dtypes", nargs="+", default=["bf16"], choices=list(DTYPES))
    parser.add_argument("--only", default="", help="kernels whose name holds this")
    parser.add_argument("--first", action="store_true", help="only the first tiling of each list")
    parser.add_argument("--table", action="store_true", help="Markdown instead of JSON lines")
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("unset TRITON_INTERPRET: the interpreter compiles nothing")
    if options.table:
        print(
            "| kernel | chip | D | dtype | tile, warps, stages | registers | spills | scalar spills | shared, bytes |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
    for row in rows(options.chips, options.dims, options.dtypes, options.only, options.first):
        if options.table:
            what = (row.kernel, row.chip, row.dim, row.dtype, row.tiling)
            taken = (row.registers, row.spills, row.scalar_spills, row.shared)
            print(f"| {' | '.join(map(str, (*what, *taken)))} |", flush=True)
        else:
            print(json.dumps({**asdict(row), "fits": row.fits}), flush=True)


if __name__ == "__main__":
    main()
