"""NVIDIA's own Python bindings of the CUDA driver, on whatever libcuda.so.1 the loader finds.

A vector addition, then a kernel that writes one element too many. With SOFTCUDA_REPORT set the stand-in library writes
what its checks find there; the last lines of this file read it.
"""

import ctypes
import json
import os
import sys

import numpy
from cuda.bindings import driver

PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry add(.param .u64 x, .param .u64 y, .param .u64 z, .param .u32 n)
{
    .reg .pred %done;
    .reg .b32 %i, %t, %n;
    .reg .b64 %x, %y, %z;
    .reg .f32 %a, %b;
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    ld.param.u64 %z, [z];
    ld.param.u32 %n, [n];
    mov.u32 %i, %ctaid.x;
    mov.u32 %t, %ntid.x;
    mul.lo.u32 %i, %i, %t;
    mov.u32 %t, %tid.x;
    add.u32 %i, %i, %t;
    setp.ge.u32 %done, %i, %n;
    @%done ret;
    mad.wide.u32 %x, %i, 4, %x;
    mad.wide.u32 %y, %i, 4, %y;
    mad.wide.u32 %z, %i, 4, %z;
    ld.global.f32 %a, [%x];
    ld.global.f32 %b, [%y];
    add.f32 %a, %a, %b;
    st.global.f32 [%z], %a;
    ret;
}
\0"""


def check(result):
    code, *rest = result
    if code != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{code}: {driver.cuGetErrorString(code)[1]}")
    return rest[0] if len(rest) == 1 else rest


def main():
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    name = check(driver.cuDeviceGetName(64, device)).rstrip(b"\0").decode()
    context = check(driver.cuDevicePrimaryCtxRetain(device))
    check(driver.cuCtxSetCurrent(context))
    stream = check(driver.cuStreamCreate(0))
    module = check(driver.cuModuleLoadData(PTX))
    add = check(driver.cuModuleGetFunction(module, b"add"))

    n = 1000
    rng = numpy.random.default_rng(1)
    x, y = (rng.standard_normal(n).astype(numpy.float32) for _ in range(2))
    z = numpy.zeros(n, numpy.float32)
    at = [check(driver.cuMemAlloc(4 * n)) for _ in range(3)]
    check(driver.cuMemcpyHtoDAsync(at[0], x.ctypes.data, 4 * n, stream))
    check(driver.cuMemcpyHtoDAsync(at[1], y.ctypes.data, 4 * n, stream))

    def launch(count):
        types = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
        args = (tuple(int(p) for p in at) + (count,), types)
        check(driver.cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, stream, args, 0))

    launch(n)
    check(driver.cuMemcpyDtoHAsync(z.ctypes.data, at[2], 4 * n, stream))
    check(driver.cuStreamSynchronize(stream))
    assert (z == x + y).all(), "wrong sums"
    print(f"{name}: {n} sums are right")

    report = os.environ.get("SOFTCUDA_REPORT")
    if not report:
        return
    assert not os.path.exists(report), "a correct kernel gives no report"
    launch(n + 1)
    check(driver.cuStreamSynchronize(stream))
    with open(report) as lines:
        found = [json.loads(line) for line in lines]
    print(json.dumps(found[0]))
    assert {f["kind"] for f in found} == {"global-oob"}, found
    first = found[0]
    assert first["kernel"] == "add" and first["block"] == [7, 0, 0] and first["thread"] == [104, 0, 0], first


if __name__ == "__main__":
    sys.exit(main())
