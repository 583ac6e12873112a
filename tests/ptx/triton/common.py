"""Compiles Triton kernels to PTX without a GPU."""
import os

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def ptx(kernel, signature, constants={}, warps=4, stages=2, capability=80, aligned=""):
    """(name, PTX) of `kernel`. `aligned` names the arguments known to be multiples of 16.

    The first line of the PTX says what a launch must know besides its arguments: block size and shared memory.
    Triton adds two pointers of its own behind the arguments (scratch memory); these kernels use neither.
    """
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else signature[n] for n in names}
    attrs = {(names.index(n),): [["tt.divisibility", 16]] for n in aligned.split()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=attrs)
    out = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages})
    assert out.metadata.global_scratch_size == 0, names
    return kernel.__name__, f"// launch: threads={32 * warps} shared={out.metadata.shared}\n{out.asm['ptx']}"
