//! The list of functions, and a symbol for each.
#![allow(
    unsafe_code,
    non_snake_case,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    reason = "symbols of a C interface under C's names; cuda.h says what each asks of its caller. Every unsafe block here is \
              in the one macro: SAFETY: a symbol of this name has this signature by cuda.h, and its caller's promises are \
              passed on with its arguments"
)]
#![allow(clippy::too_many_arguments, reason = "C's argument lists")]

use super::codes::{self, Code};
use super::{driver, ffi, soft};
use std::ffi::{c_char, c_uint, c_void};

/// A handle or an address on the host.
pub(super) type Ptr = *mut c_void;

macro_rules! functions {
    (soft { $( $name:ident ( $($arg:ident : $ty:ty),* ); )* } absent { $( $other:ident ( $($oarg:ident : $oty:ty),* ); )* }) => {
        /// A function pointer for each symbol.
        pub(super) struct Table {
            $($name: unsafe extern "C" fn($($ty),*) -> Code,)*
            $($other: unsafe extern "C" fn($($oty),*) -> Code,)*
        }

        impl Table {
            /// Those of the software device.
            pub(super) fn soft() -> Table {
                Table { $($name: soft::$name,)* $($other: missing::$other,)* }
            }
            /// Nothing.
            pub(super) fn missing() -> Table {
                Table { $($name: missing::$name,)* $($other: missing::$other,)* }
            }
            /// Those of a real driver.
            pub(super) fn of(library: ffi::Library) -> Table {
                Table {
                    // SAFETY: see the head of this file.
                    $($name: library.symbol(concat!(stringify!($name), "\0")).map_or(missing::$name, |p| unsafe {
                        std::mem::transmute::<*const c_void, unsafe extern "C" fn($($ty),*) -> Code>(p)
                    }),)*
                    // SAFETY: see the head of this file.
                    $($other: library.symbol(concat!(stringify!($other), "\0")).map_or(missing::$other, |p| unsafe {
                        std::mem::transmute::<*const c_void, unsafe extern "C" fn($($oty),*) -> Code>(p)
                    }),)*
                }
            }
        }

        /// For drivers that lack a function.
        mod missing {
            use super::*;
            $( pub(super) unsafe extern "C" fn $name($(_: $ty),*) -> Code { codes::NOT_SUPPORTED } )*
            $( pub(super) unsafe extern "C" fn $other($(_: $oty),*) -> Code { codes::NOT_SUPPORTED } )*
        }

        $(
            /// As cuda.h has it.
            // SAFETY: the only symbol of this name in this library; see the head of this file.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> Code {
                // SAFETY: see the head of this file.
                codes::known(unsafe { (driver().table.$name)($($arg),*) })
            }
        )*
        $(
            /// As cuda.h has it.
            // SAFETY: the only symbol of this name in this library; see the head of this file.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $other($($oarg: $oty),*) -> Code {
                // SAFETY: see the head of this file.
                codes::known(unsafe { (driver().table.$other)($($oarg),*) })
            }
        )*

        /// Address of the symbol of this name.
        pub(super) fn address(name: &str) -> Option<*const c_void> {
            match name {
                $(stringify!($name) => Some($name as *const c_void),)*
                $(stringify!($other) => Some($other as *const c_void),)*
                _ => None,
            }
        }
    };
}

functions! {
    soft {
        cuInit(flags: c_uint);
        cuDriverGetVersion(version: *mut i32);
        cuGetErrorName(error: Code, name: *mut *const c_char);
        cuGetErrorString(error: Code, text: *mut *const c_char);
        cuGetProcAddress(symbol: *const c_char, out: *mut Ptr, version: i32, flags: u64);
        cuGetProcAddress_v2(symbol: *const c_char, out: *mut Ptr, version: i32, flags: u64, status: *mut i32);
        cuDeviceGet(device: *mut i32, ordinal: i32);
        cuDeviceGetCount(count: *mut i32);
        cuDeviceGetName(name: *mut c_char, len: i32, device: i32);
        cuDeviceGetUuid(uuid: *mut [u8; 16], device: i32);
        cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32);
        cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32);
        cuDeviceComputeCapability(major: *mut i32, minor: *mut i32, device: i32);
        cuDeviceTotalMem_v2(bytes: *mut usize, device: i32);
        cuDeviceGetPCIBusId(text: *mut c_char, len: i32, device: i32);
        cuDeviceCanAccessPeer(can: *mut i32, device: i32, peer: i32);
        cuDevicePrimaryCtxRetain(context: *mut Ptr, device: i32);
        cuDevicePrimaryCtxRelease_v2(device: i32);
        cuDevicePrimaryCtxReset_v2(device: i32);
        cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: c_uint);
        cuDevicePrimaryCtxGetState(device: i32, flags: *mut c_uint, active: *mut i32);
        cuCtxCreate_v2(context: *mut Ptr, flags: c_uint, device: i32);
        cuCtxCreate_v4(context: *mut Ptr, params: Ptr, flags: c_uint, device: i32);
        cuCtxDestroy_v2(context: Ptr);
        cuCtxSetCurrent(context: Ptr);
        cuCtxGetCurrent(context: *mut Ptr);
        cuCtxPushCurrent_v2(context: Ptr);
        cuCtxPopCurrent_v2(context: *mut Ptr);
        cuCtxGetDevice(device: *mut i32);
        cuCtxGetFlags(flags: *mut c_uint);
        cuCtxGetApiVersion(context: Ptr, version: *mut c_uint);
        cuCtxSynchronize();
        cuCtxGetLimit(value: *mut usize, limit: i32);
        cuCtxSetLimit(limit: i32, value: usize);
        cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32);
        cuCtxGetCacheConfig(config: *mut i32);
        cuCtxSetCacheConfig(config: i32);
        cuCtxEnablePeerAccess(peer: Ptr, flags: c_uint);
        cuCtxDisablePeerAccess(peer: Ptr);
        cuMemAlloc_v2(address: *mut u64, bytes: usize);
        cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Ptr);
        cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, element: c_uint);
        cuMemFree_v2(address: u64);
        cuMemFreeAsync(address: u64, stream: Ptr);
        cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
        cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64);
        cuPointerGetAttribute(data: Ptr, attribute: i32, address: u64);
        cuMemAllocHost_v2(p: *mut Ptr, bytes: usize);
        cuMemHostAlloc(p: *mut Ptr, bytes: usize, flags: c_uint);
        cuMemFreeHost(p: Ptr);
        cuMemHostRegister_v2(p: Ptr, bytes: usize, flags: c_uint);
        cuMemHostUnregister(p: Ptr);
        cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize);
        cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Ptr);
        cuMemcpyDtoH_v2(to: Ptr, from: u64, bytes: usize);
        cuMemcpyDtoHAsync_v2(to: Ptr, from: u64, bytes: usize, stream: Ptr);
        cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize);
        cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Ptr);
        cuMemcpyPeer(to: u64, to_context: Ptr, from: u64, from_context: Ptr, bytes: usize);
        cuMemcpyPeerAsync(to: u64, to_context: Ptr, from: u64, from_context: Ptr, bytes: usize, stream: Ptr);
        cuMemsetD8_v2(to: u64, value: u8, n: usize);
        cuMemsetD16_v2(to: u64, value: u16, n: usize);
        cuMemsetD32_v2(to: u64, value: c_uint, n: usize);
        cuMemsetD8Async(to: u64, value: u8, n: usize, stream: Ptr);
        cuMemsetD16Async(to: u64, value: u16, n: usize, stream: Ptr);
        cuMemsetD32Async(to: u64, value: c_uint, n: usize, stream: Ptr);
        cuStreamCreate(stream: *mut Ptr, flags: c_uint);
        cuStreamCreateWithPriority(stream: *mut Ptr, flags: c_uint, priority: i32);
        cuStreamDestroy_v2(stream: Ptr);
        cuStreamSynchronize(stream: Ptr);
        cuStreamQuery(stream: Ptr);
        cuStreamWaitEvent(stream: Ptr, event: Ptr, flags: c_uint);
        cuStreamGetFlags(stream: Ptr, flags: *mut c_uint);
        cuStreamGetPriority(stream: Ptr, priority: *mut i32);
        cuLaunchHostFunc(stream: Ptr, function: Option<ffi::HostFn>, data: Ptr);
        cuEventCreate(event: *mut Ptr, flags: c_uint);
        cuEventDestroy_v2(event: Ptr);
        cuEventRecord(event: Ptr, stream: Ptr);
        cuEventQuery(event: Ptr);
        cuEventSynchronize(event: Ptr);
        cuEventElapsedTime(ms: *mut f32, start: Ptr, end: Ptr);
        cuEventElapsedTime_v2(ms: *mut f32, start: Ptr, end: Ptr);
        cuModuleLoad(module: *mut Ptr, file: *const c_char);
        cuModuleLoadData(module: *mut Ptr, image: *const c_void);
        cuModuleLoadDataEx(module: *mut Ptr, image: *const c_void, n: c_uint, options: *mut i32, values: *mut Ptr);
        cuModuleUnload(module: Ptr);
        cuModuleGetFunction(function: *mut Ptr, module: Ptr, name: *const c_char);
        cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Ptr, name: *const c_char);
        cuFuncGetAttribute(value: *mut i32, attribute: i32, function: Ptr);
        cuFuncSetAttribute(function: Ptr, attribute: i32, value: i32);
        cuFuncSetCacheConfig(function: Ptr, config: i32);
        cuFuncGetModule(module: *mut Ptr, function: Ptr);
        cuOccupancyMaxActiveBlocksPerMultiprocessor(n: *mut i32, function: Ptr, block: i32, shared: usize);
        cuLaunchKernel(
            function: Ptr, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
            block_z: c_uint, shared: c_uint, stream: Ptr, params: *mut Ptr, extra: *mut Ptr
        );
    }
    absent {
        cuCtxGetSharedMemConfig(config: *mut i32);
        cuCtxSetSharedMemConfig(config: i32);
        cuFuncSetSharedMemConfig(function: Ptr, config: i32);
        cuMemAllocManaged(address: *mut u64, bytes: usize, flags: c_uint);
        cuMemAdvise(address: u64, bytes: usize, advice: i32, device: i32);
        cuMemPrefetchAsync(address: u64, bytes: usize, device: i32, stream: Ptr);
        cuMemcpy2D_v2(copy: Ptr);
        cuMemcpyAtoH_v2(to: Ptr, from: Ptr, offset: usize, bytes: usize);
        cuMemcpyHtoA_v2(to: Ptr, offset: usize, from: *const c_void, bytes: usize);
        cuArray3DCreate_v2(array: *mut Ptr, descriptor: Ptr);
        cuArray3DGetDescriptor_v2(descriptor: Ptr, array: Ptr);
        cuArrayDestroy(array: Ptr);
        cuDestroyExternalMemory(memory: Ptr);
        cuExternalMemoryGetMappedBuffer(address: *mut u64, memory: Ptr, descriptor: Ptr);
        cuImportExternalMemory(memory: *mut Ptr, descriptor: Ptr);
        cuGraphAddKernelNode(node: *mut Ptr, graph: Ptr, on: Ptr, n: usize, params: Ptr);
        cuGraphCreate(graph: *mut Ptr, flags: c_uint);
        cuGraphDebugDotPrint(graph: Ptr, file: *const c_char, flags: c_uint);
        cuGraphDestroy(graph: Ptr);
        cuGraphGetEdges(graph: Ptr, from: *mut Ptr, to: *mut Ptr, n: *mut usize);
        cuGraphGetNodes(graph: Ptr, nodes: *mut Ptr, n: *mut usize);
        cuGraphKernelNodeGetParams(node: Ptr, params: Ptr);
        cuGraphNodeGetType(node: Ptr, kind: *mut i32);
        cuLinkAddData_v2(
            state: Ptr, kind: i32, data: Ptr, size: usize, name: *const c_char, n: c_uint, options: *mut i32,
            values: *mut Ptr
        );
        cuLinkComplete(state: Ptr, cubin: *mut Ptr, size: *mut usize);
        cuLinkCreate_v2(n: c_uint, options: *mut i32, values: *mut Ptr, state: *mut Ptr);
        cuLinkDestroy(state: Ptr);
        cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, function: Ptr, blocks: i32, block: i32);
        cuOccupancyMaxPotentialBlockSize(
            grid: *mut i32, block: *mut i32, function: Ptr, shared_of: Ptr, shared: usize, limit: i32
        );
        cuSurfObjectCreate(surface: *mut u64, descriptor: Ptr);
        cuSurfObjectDestroy(surface: u64);
        cuSurfObjectGetResourceDesc(descriptor: Ptr, surface: u64);
        cuTexObjectCreate(texture: *mut u64, resource: Ptr, descriptor: Ptr, view: Ptr);
        cuTexObjectDestroy(texture: u64);
        cuTexObjectGetResourceDesc(descriptor: Ptr, texture: u64);
        cuTexObjectGetResourceViewDesc(descriptor: Ptr, texture: u64);
    }
}
