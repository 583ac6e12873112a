//! Streams and events.

use super::super::codes::*;
use super::super::ffi::{Callback, HostFn, put, put_if};
use super::super::table::Ptr;
use super::{code, device, handle, id, machine, on};
use crate::device::soft::{DEVICES, Machine};
use crate::error::Result as Outcome;
use std::ffi::c_uint;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Our number of a stream handle: 0, 1 and 2 (CU_STREAM_LEGACY, CU_STREAM_PER_THREAD) are the default stream.
pub(super) fn stream(device: u32, handle: Ptr) -> Result<u64, Code> {
    match handle.addr() as u64 {
        0..=2 => Ok(device.into()),
        other if other >= u64::from(DEVICES) && machine().streams().knows(other) => Ok(other),
        _ => Err(INVALID_HANDLE),
    }
}

/// Puts work into a stream, and waits for it when asked to.
pub(super) fn queue(
    device: u32,
    stream: u64,
    wait: bool,
    run: impl FnOnce(&Machine) -> Outcome<()> + Send + 'static,
) -> Result<(), Code> {
    let streams = machine().streams();
    let ticket = streams.push(device, stream, Box::new(run));
    if !wait {
        return Ok(());
    }
    on(device, streams.drain(machine(), &[ticket]))
}

pub(in super::super) extern "C" fn cuStreamCreate(out: *mut Ptr, flags: c_uint) -> Code {
    // CU_STREAM_NON_BLOCKING = 1: such a stream does not wait for the default stream.
    code(|| put(out, handle(machine().streams().open(device()?, flags & 1 == 0))))
}
pub(in super::super) extern "C" fn cuStreamCreateWithPriority(out: *mut Ptr, flags: c_uint, _: i32) -> Code {
    cuStreamCreate(out, flags)
}
pub(in super::super) extern "C" fn cuStreamDestroy_v2(of: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let (number, streams) = (stream(device, of)?, machine().streams());
        if number < DEVICES.into() {
            return Err(INVALID_HANDLE);
        }
        on(device, streams.drain(machine(), &streams.last(number)))?;
        streams.close(number);
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuStreamSynchronize(of: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let streams = machine().streams();
        on(device, streams.drain(machine(), &streams.last(stream(device, of)?)))?;
        on(device, streams.kept(device))
    })
}
pub(in super::super) extern "C" fn cuStreamQuery(of: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let streams = machine().streams();
        let last = streams.last(stream(device, of)?);
        if streams.passed(&last) {
            return Ok(());
        }
        // Who asks again and again is waiting: the work goes on a little, or it would never end.
        on(device, streams.drain(machine(), &last))?;
        Err(NOT_READY)
    })
}
pub(in super::super) extern "C" fn cuStreamWaitEvent(of: Ptr, event: Ptr, _: c_uint) -> Code {
    code(|| {
        let device = device()?;
        machine().streams().wait(stream(device, of)?, id(event)?);
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuStreamGetFlags(of: Ptr, flags: *mut c_uint) -> Code {
    code(|| stream(device()?, of).and_then(|_| put(flags, 0)))
}
pub(in super::super) extern "C" fn cuStreamGetPriority(of: Ptr, priority: *mut i32) -> Code {
    code(|| stream(device()?, of).and_then(|_| put(priority, 0)))
}
pub(in super::super) extern "C" fn cuLaunchHostFunc(of: Ptr, function: Option<HostFn>, data: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let callback = Callback(function, data);
        let call = move |_: &Machine| {
            let all = callback; // the whole value, which may cross threads, not its fields
            all.call();
            Ok(())
        };
        queue(device, stream(device, of)?, false, call)
    })
}

pub(in super::super) extern "C" fn cuEventCreate(out: *mut Ptr, _: c_uint) -> Code {
    code(|| {
        device()?;
        put(out, handle(machine().streams().open_event()))
    })
}
pub(in super::super) extern "C" fn cuEventDestroy_v2(event: Ptr) -> Code {
    code(|| if machine().streams().close_event(id(event)?) { Ok(()) } else { Err(INVALID_HANDLE) })
}
pub(in super::super) extern "C" fn cuEventRecord(event: Ptr, of: Ptr) -> Code {
    code(|| {
        let device = device()?;
        let (event, number, streams) = (id(event)?, stream(device, of)?, machine().streams());
        let at = Arc::new(OnceLock::new());
        let noted = Arc::clone(&at);
        let note = move |_: &Machine| {
            noted.get_or_init(Instant::now);
            Ok(())
        };
        let ticket = streams.push(device, number, Box::new(note));
        streams.record(event, ticket, at);
        Ok(())
    })
}
pub(in super::super) extern "C" fn cuEventQuery(event: Ptr) -> Code {
    code(|| {
        let (device, streams) = (device()?, machine().streams());
        let at = streams.recorded(id(event)?);
        if streams.passed(&at) {
            return Ok(());
        }
        on(device, streams.drain(machine(), &at))?;
        Err(NOT_READY)
    })
}
pub(in super::super) extern "C" fn cuEventSynchronize(event: Ptr) -> Code {
    code(|| {
        let (device, streams) = (device()?, machine().streams());
        on(device, streams.drain(machine(), &streams.recorded(id(event)?)))
    })
}
pub(in super::super) extern "C" fn cuEventElapsedTime(ms: *mut f32, start: Ptr, end: Ptr) -> Code {
    code(|| {
        let streams = machine().streams();
        let (start, end) = (id(start)?, id(end)?);
        put_if(ms, 0.0);
        match (streams.passed_at(start), streams.passed_at(end)) {
            (Some(a), Some(b)) => put(ms, b.saturating_duration_since(a).as_secs_f32() * 1e3),
            _ => Err(NOT_READY),
        }
    })
}
pub(in super::super) extern "C" fn cuEventElapsedTime_v2(ms: *mut f32, start: Ptr, end: Ptr) -> Code {
    cuEventElapsedTime(ms, start, end)
}
