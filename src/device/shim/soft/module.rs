//! Modules, functions, launches.

use super::super::codes::*;
use super::super::ffi::{Room, bytes, entry, get, put, put_if, text};
use super::super::table::Ptr;
use super::stream::{queue, stream};
use super::{code, device, handle, id, machine, on, report};
use crate::device::driver::{Call, Module};
use crate::device::soft::SoftModule;
use crate::error::Error;
use crate::ptx::program;
use std::collections::HashMap;
use std::ffi::{c_char, c_uint, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An entry of a module, as CUfunction names it.
#[derive(Clone)]
struct Function {
    module: u64,
    entry: String,
}

#[derive(Default)]
struct Functions {
    all: HashMap<u64, Function>,
    next: u64,
}

static FUNCTIONS: Mutex<Option<Functions>> = Mutex::new(None);

fn functions() -> MutexGuard<'static, Option<Functions>> {
    FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn function(of: Ptr) -> Result<(Function, Arc<SoftModule>), Code> {
    let number = id(of)?;
    let found = functions().as_ref().and_then(|f| f.all.get(&number).cloned()).ok_or(INVALID_HANDLE)?;
    let module = machine().module(found.module).ok_or(INVALID_HANDLE)?;
    Ok((found, module))
}

fn entry_of<'m>(f: &Function, module: &'m SoftModule) -> Result<&'m program::Function, Code> {
    module.program.functions.iter().find(|e| e.entry && e.name == f.entry).ok_or(NOT_FOUND)
}

/// The PTX at `image`, which ends with a NUL. Machine code begins with the magic numbers of an ELF file or a fat binary.
fn ptx<'a>(image: *const c_void) -> Result<&'a str, Code> {
    let magic: [u8; 4] = get(image.cast())?;
    if magic == *b"\x7fELF" || magic == [0x50, 0xed, 0x55, 0xba] {
        return Err(NO_BINARY);
    }
    text(image.cast()).map_err(|_| INVALID_PTX)
}

fn load(out: *mut Ptr, text: &str, log: impl FnOnce(&Error)) -> Result<(), Code> {
    let device = device()?;
    let loaded = machine().load(device, "<module>", text);
    if let Err(e) = &loaded {
        log(e);
    }
    put(out, handle(on(device, loaded)?))
}

pub(in super::super) extern "C" fn cuModuleLoad(out: *mut Ptr, file: *const c_char) -> Code {
    code(|| {
        let text = std::fs::read_to_string(text(file)?).map_err(|_| FILE_NOT_FOUND)?;
        load(out, &text, report)
    })
}
pub(in super::super) extern "C" fn cuModuleLoadData(out: *mut Ptr, image: *const c_void) -> Code {
    code(|| load(out, ptx(image)?, report))
}
/// Of the options of the compiler only its log matters here: CU_JIT_INFO_LOG_BUFFER(_SIZE_BYTES) = 3, 4 and
/// CU_JIT_ERROR_LOG_BUFFER(_SIZE_BYTES) = 5, 6; sizes come as the pointer itself.
pub(in super::super) extern "C" fn cuModuleLoadDataEx(
    out: *mut Ptr,
    image: *const c_void,
    n: c_uint,
    options: *mut i32,
    values: *mut Ptr,
) -> Code {
    code(|| {
        let (mut to, mut room) = (std::ptr::null_mut(), 0);
        for i in 0..n as usize {
            match entry(options, i)? {
                5 => to = entry(values, i)?,
                6 => room = entry(values, i)?.addr() & 0xffff_ffff,
                _ => {}
            }
        }
        load(out, ptx(image)?, |e| {
            if to.is_null() || room == 0 {
                return report(e);
            }
            let mut text = e.to_string().into_bytes();
            text.truncate(room - 1);
            text.push(0);
            let _ = Room::new(to, room).map(|r| r.fill(&text)); // not null
        })
    })
}
pub(in super::super) extern "C" fn cuModuleUnload(module: Ptr) -> Code {
    code(|| {
        let (device, module) = (device()?, id(module)?);
        let streams = machine().streams();
        on(device, streams.drain(machine(), &streams.last_of(device)))?;
        if let Some(f) = functions().as_mut() {
            f.all.retain(|_, f| f.module != module);
        }
        if machine().unload(module) { Ok(()) } else { Err(INVALID_HANDLE) }
    })
}
pub(in super::super) extern "C" fn cuModuleGetFunction(
    out: *mut Ptr,
    module: Ptr,
    name: *const c_char,
) -> Code {
    code(|| {
        let found = Function { module: id(module)?, entry: text(name)?.to_owned() };
        entry_of(&found, machine().module(found.module).ok_or(INVALID_HANDLE)?.as_ref())?;
        let mut all = functions();
        let all = all.get_or_insert_with(Functions::default);
        all.next += 16;
        all.all.insert(all.next, found);
        put(out, handle(all.next))
    })
}
pub(in super::super) extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    size: *mut usize,
    module: Ptr,
    name: *const c_char,
) -> Code {
    code(|| {
        let module = machine().module(id(module)?).ok_or(INVALID_HANDLE)?;
        let name = text(name)?;
        let at = module.program.variables.iter().position(|v| v.name == name).ok_or(NOT_FOUND)?;
        put_if(address, module.loaded.variables[at]);
        put_if(size, module.program.variables[at].bytes as usize);
        Ok(())
    })
}

/// CUfunction_attribute: threads of a block, shared, constant and local bytes, registers, versions, dynamic shared memory.
/// How many registers a compiler would use is not known; the registers that the text names stand in for them.
pub(in super::super) extern "C" fn cuFuncGetAttribute(out: *mut i32, attribute: i32, of: Ptr) -> Code {
    code(|| {
        let (f, module) = function(of)?;
        let e = entry_of(&f, &module)?;
        let threads =
            e.required_block.or(e.most_threads).map_or(1024, |b| b.iter().map(|n| (*n).max(1)).product());
        let value = match attribute {
            0 => threads,
            1 => e.shared_bytes,
            3 => e.local_bytes,
            4 => e.rows.min(255),
            5 | 6 => 90,
            8 => (227 << 10) - e.shared_bytes.min(227 << 10),
            _ => 0,
        };
        put(out, value as i32)
    })
}
pub(in super::super) extern "C" fn cuFuncSetAttribute(of: Ptr, _: i32, _: i32) -> Code {
    code(|| function(of).map(drop)) // every launch may take all the dynamic shared memory there is
}
pub(in super::super) extern "C" fn cuFuncSetCacheConfig(of: Ptr, _: i32) -> Code {
    code(|| function(of).map(drop))
}
pub(in super::super) extern "C" fn cuFuncGetModule(out: *mut Ptr, of: Ptr) -> Code {
    code(|| put(out, handle(function(of)?.0.module)))
}
pub(in super::super) extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    out: *mut i32,
    of: Ptr,
    block: i32,
    shared: usize,
) -> Code {
    code(|| {
        let (f, module) = function(of)?;
        let bytes = entry_of(&f, &module)?.shared_bytes as usize + shared;
        let by_threads = 2048 / block.clamp(1, 2048);
        let by_shared = (228_usize << 10).checked_div(bytes).map_or(32, |n| n.min(32) as i32);
        put(out, by_threads.min(by_shared).min(32))
    })
}

/// The parameters of a launch as one buffer: either given so (`extra`: CU_LAUNCH_PARAM_BUFFER_POINTER = 1 and …_SIZE = 2,
/// ended by 0), or as a pointer to each.
fn parameters(e: &program::Function, params: *mut Ptr, extra: *mut Ptr) -> Result<Vec<u8>, Code> {
    if params.is_null() && !extra.is_null() {
        let (mut buffer, mut size) = (std::ptr::null_mut(), 0);
        for i in (0..).step_by(2) {
            match entry(extra, i)?.addr() {
                0 => break,
                1 => buffer = entry(extra, i + 1)?,
                2 => size = get(entry(extra, i + 1)?.cast::<usize>())?,
                _ => return Err(INVALID_VALUE),
            }
        }
        let mut all = bytes(buffer, size)?.to_vec();
        all.resize(e.param_bytes as usize, 0); // a caller may leave out, or put in, padding at the end
        return Ok(all);
    }
    let mut all = vec![0; e.param_bytes as usize];
    for (i, p) in e.params.iter().enumerate() {
        let value = bytes(entry(params, i)?, p.bytes as usize)?;
        all[p.offset as usize..][..value.len()].copy_from_slice(value);
    }
    Ok(all)
}

pub(in super::super) extern "C" fn cuLaunchKernel(
    of: Ptr,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    into: Ptr,
    params: *mut Ptr,
    extra: *mut Ptr,
) -> Code {
    code(|| {
        let device = device()?;
        let (f, module) = function(of)?;
        let params = parameters(entry_of(&f, &module)?, params, extra)?;
        let call = Call {
            module: Module(f.module),
            entry: &f.entry,
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes: shared,
            params: &params,
        };
        let run = machine().prepare(&call).map_err(|e| {
            report(&e);
            if matches!(of_launch(&e), LAUNCH_OUT_OF_RESOURCES) {
                LAUNCH_OUT_OF_RESOURCES
            } else {
                INVALID_VALUE
            }
        })?;
        queue(device, stream(device, into)?, false, run)
    })
}

fn of_launch(e: &Error) -> Code {
    super::super::codes::of(e)
}
