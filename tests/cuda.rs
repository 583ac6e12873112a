//! The crate `cust` over our driver symbols: on a machine without a GPU the software device answers.
#![cfg(feature = "cuda")]
#![allow(
    unsafe_code,
    reason = "launches and raw copies are unsafe in cust; the kernels here are in this file"
)]

use cust::context::{Context, CurrentContext};
use cust::device::{Device, DeviceAttribute};
use cust::event::{Event, EventFlags};
use cust::launch;
use cust::memory::{AsyncCopyDestination, CopyDestination, DeviceBuffer, LockedBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags, StreamWaitEventFlags};
use cust::sys;
use ringtape::device::shim::{self, Answers};

const PTX: &str = "
.version 7.0
.target sm_75
.address_size 64
.visible .global .align 4 .u32 launches = 5;
// y[i] = a x[i]
.visible .entry scaled(.param .u64 x, .param .u64 y, .param .f32 a, .param .u32 n)
{
    .reg .pred %done;
    .reg .b32 %i, %t, %n;
    .reg .b64 %x, %y;
    .reg .f32 %a, %v;
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    ld.param.f32 %a, [a];
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
    ld.global.f32 %v, [%x];
    mul.f32 %v, %v, %a;
    st.global.f32 [%y], %v;
    ret;
}
";

/// A context of device `ordinal`, current on this thread.
fn context(ordinal: u32) -> Context {
    cust::init(cust::CudaFlags::empty()).unwrap();
    Context::new(Device::get_device(ordinal).unwrap()).unwrap()
}

fn software() -> bool {
    shim::answers() == Answers::Software
}

#[test]
fn devices_say_what_they_are() {
    let _context = context(0);
    assert!(Device::num_devices().unwrap() >= 1);
    let device = Device::get_device(0).unwrap();
    assert_eq!(device.get_attribute(DeviceAttribute::WarpSize).unwrap(), 32);
    assert!(device.total_memory().unwrap() > 1 << 30);
    if software() {
        assert!(device.name().unwrap().contains("software CUDA device 0"));
        assert!(Device::get_device(99).is_err());
    }
}

#[test]
fn a_kernel_runs_between_copies_and_events() {
    let _context = context(0);
    let module = Module::from_ptx(PTX, &[]).unwrap();
    let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
    let (start, end) = (Event::new(EventFlags::DEFAULT).unwrap(), Event::new(EventFlags::DEFAULT).unwrap());
    let n = 1000usize;
    let mut host = LockedBuffer::new(&0.0f32, n).unwrap();
    host.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
    let mut x = DeviceBuffer::from_slice(&[0.0f32; 1000]).unwrap();
    let y = DeviceBuffer::from_slice(&[0.0f32; 1000]).unwrap();
    let scaled = module.get_function("scaled").unwrap();
    start.record(&stream).unwrap();
    // SAFETY: the buffers outlive the stream's work, which is waited for below; the kernel takes these arguments.
    unsafe {
        x.async_copy_from(&host[..], &stream).unwrap();
        launch!(scaled<<<8, 128, 0, stream>>>(x.as_device_ptr(), y.as_device_ptr(), 2.5f32, n as u32))
            .unwrap();
    }
    end.record(&stream).unwrap();
    end.synchronize().unwrap();
    assert!(end.elapsed_time_f32(&start).unwrap() >= 0.0);
    let mut back = vec![0.0f32; n];
    y.copy_to(&mut back).unwrap();
    assert!(back.iter().enumerate().all(|(i, v)| *v == 2.5 * i as f32));
    let launches = module.get_global::<u32>(c"launches").unwrap();
    let mut value = 0u32;
    launches.copy_to(&mut value).unwrap();
    assert_eq!(value, 5);
    assert!(module.get_function("nothing").is_err());
}

#[test]
fn bad_ptx_is_an_error_with_the_line() {
    let _context = context(0);
    let bad = std::ffi::CString::new(PTX.replace("mul.f32 %v", "mul.f32 %w")).unwrap();
    let (mut log, mut module) = ([0u8; 400], std::ptr::null_mut());
    let mut options = [
        sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
    // SAFETY: two options, two values, text with a NUL at its end, room for the log.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            bad.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    assert_ne!(code as u32, 0);
    let text = String::from_utf8_lossy(&log).into_owned();
    if software() {
        assert!(text.contains("`%w`") && text.contains(":27:"), "{text}");
    }
}

#[test]
fn two_devices_copy_between_each_other() {
    let here = context(0);
    if Device::num_devices().unwrap() < 2 {
        return;
    }
    let x = DeviceBuffer::from_slice(&(0..100).collect::<Vec<u32>>()).unwrap();
    let there = context(1);
    CurrentContext::set_current(&there).unwrap();
    let mut y = DeviceBuffer::from_slice(&[0u32; 100]).unwrap();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    // SAFETY: both buffers have 400 bytes and live until the stream is done.
    let code = unsafe {
        sys::cuMemcpyPeerAsync(
            y.as_device_ptr().as_raw(),
            there.as_raw(),
            x.as_device_ptr().as_raw(),
            here.as_raw(),
            400,
            stream.as_inner(),
        )
    };
    assert_eq!(code as u32, 0);
    let arrived = Event::new(EventFlags::DEFAULT).unwrap();
    arrived.record(&stream).unwrap();
    let other = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    other.wait_event(arrived, StreamWaitEventFlags::DEFAULT).unwrap();
    other.synchronize().unwrap();
    stream.synchronize().unwrap();
    assert_eq!(y.as_host_vec().unwrap(), (0..100).collect::<Vec<u32>>());
    y.set_zero().unwrap();
    assert_eq!(y.as_host_vec().unwrap(), [0; 100]);
    drop(y);
    CurrentContext::set_current(&here).unwrap();
}

/// An address that is no memory: an error of the stream, and of all that follows on the device, as on hardware.
#[test]
fn a_fault_comes_back_and_stays_until_reset() {
    if !software() {
        return;
    }
    // In a process of its own: the other tests share the device.
    if std::env::var_os("FAULT_HERE").is_none() {
        let me = std::env::current_exe().unwrap();
        let out = std::process::Command::new(me)
            .args(["--exact", "a_fault_comes_back_and_stays_until_reset", "--nocapture"])
            .env("FAULT_HERE", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(String::from_utf8_lossy(&out.stderr).contains("global-oob"));
        return;
    }
    let _context = context(0);
    let module = Module::from_ptx(PTX, &[]).unwrap();
    let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
    let scaled = module.get_function("scaled").unwrap();
    let y = DeviceBuffer::from_slice(&[0.0f32; 4]).unwrap();
    // SAFETY: the kernel reads what is not there; that is what the software device is for.
    unsafe {
        launch!(scaled<<<1, 4, 0, stream>>>(0x1234_5000u64, y.as_device_ptr(), 1.0f32, 4u32)).unwrap();
    }
    assert_eq!(stream.synchronize(), Err(cust::error::CudaError::IllegalAddress));
    assert_eq!(y.copy_to(&mut [0.0; 4]), Err(cust::error::CudaError::IllegalAddress));
    // SAFETY: nothing of the device is used by others in this process.
    assert_eq!(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) } as u32, 0);
    y.copy_to(&mut [0.0; 4]).unwrap();
}
