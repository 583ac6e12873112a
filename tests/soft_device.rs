//! The software CUDA device as a driver: memory, launches, deferred streams, events, copies between devices.

use ringtape::device::soft::{self, Machine, Settings};
use ringtape::device::{Call, Device};
use ringtape::error::Result;
use ringtape::kernel::{Arg, Kernel, Param, Source, launch};
use ringtape::shape::{DType, Spec};
use ringtape::tensor::Tensor;
use std::sync::Arc;

const PTX: &str = "
.version 7.0
.target sm_75
.address_size 64
// y[i] = a * x[i]; one element beyond the end when `over` is set.
.visible .entry scaled(
    .param .u64 x, .param .u32 x_len, .param .u64 y, .param .u32 y_len, .param .f32 a, .param .u32 over)
.reqntid 64
{
    .reg .pred %done;
    .reg .b32 %i, %n, %step, %over, %t;
    .reg .b64 %x, %y, %at;
    .reg .f32 %a, %v;
    ld.param.u64 %x, [x];
    ld.param.u64 %y, [y];
    ld.param.u32 %n, [y_len];
    ld.param.u32 %over, [over];
    add.u32 %n, %n, %over;
    ld.param.f32 %a, [a];
    mov.u32 %i, %ctaid.x;
    mov.u32 %step, %ntid.x;
    mov.u32 %t, %tid.x; mad.lo.u32 %i, %i, %step, %t;
    mov.u32 %t, %nctaid.x; mul.lo.u32 %step, %step, %t;
next:
    setp.ge.u32 %done, %i, %n;
    @%done ret;
    mad.wide.u32 %at, %i, 4, %x;
    ld.global.f32 %v, [%at];
    mul.f32 %v, %v, %a;
    mad.wide.u32 %at, %i, 4, %y;
    st.global.f32 [%at], %v;
    add.u32 %i, %i, %step;
    bra next;
}
";

static SOURCE: Source = Source { file: "scaled.ptx", text: PTX, splice: &[] };

const fn param(name: &'static str, role: &'static str, ty: &'static str) -> Param {
    Param { name, role, ty }
}

static SCALED: Kernel = Kernel {
    entry: "scaled",
    params: &[
        param("x", "in", "T"),
        param("y", "out", "T"),
        param("a", "val", "T"),
        param("over", "val", "flag"),
    ],
    cpu: |_| Ok(()),
    source: Some(&SOURCE),
    blocks: None,
};

fn machine(settings: Settings) -> Arc<Machine> {
    Arc::new(Machine::new(settings))
}

fn scaled(x: &Tensor, y: &mut Tensor, a: f64, over: bool) -> Result<()> {
    launch(&SCALED, &mut [Arg::In(x), Arg::Out(y), Arg::Real(a), Arg::Flag(over)])
}

fn values(device: &Device, n: usize) -> Tensor {
    Tensor::from_slice(device, &(0..n).map(|i| i as f32).collect::<Vec<_>>(), &[n]).unwrap()
}

/// A device of each driver that this build has.
fn drivers() -> Vec<Device> {
    let soft = soft::device(&machine(Settings::default()), 0).unwrap();
    #[cfg(feature = "cuda")]
    return vec![soft, Device::open("cuda:0").unwrap()];
    #[cfg(not(feature = "cuda"))]
    vec![soft]
}

#[test]
fn a_kernel_runs_on_tensors_of_the_device_and_on_windows_of_them() {
    drivers().iter().for_each(runs);
}

fn runs(device: &Device) {
    let x = values(device, 1000);
    let mut y = Tensor::empty(device, x.spec()).unwrap();
    scaled(&x, &mut y, 0.5, false).unwrap();
    assert_eq!(y.to_f64().unwrap(), (0..1000).map(|i| f64::from(i) / 2.0).collect::<Vec<_>>());
    let x = x.window(7, &[3, 11]).unwrap();
    let mut y = Tensor::full(device, Spec::new(DType::F32, &[40]).unwrap(), 9.0).unwrap();
    y.copy_from(1, &x).unwrap();
    assert_eq!(y.to_f64().unwrap()[..3], [9.0, 7.0, 8.0]);
    assert_eq!(y.to_f64().unwrap()[33..36], [39.0, 9.0, 9.0]);
    assert_eq!(y.deep_clone().unwrap().to_host().unwrap().to_f64().unwrap(), y.to_f64().unwrap());
}

#[test]
fn errors_name_the_kernel_the_parameter_and_the_remedy() {
    let device = soft::device(&machine(Settings::default()), 0).unwrap();
    let x = values(&device, 10);
    let mut y = x.deep_clone().unwrap();
    let text = |e: Result<()>| e.unwrap_err().to_string();

    let cpu = values(&Device::cpu(), 10);
    let e = text(scaled(&cpu, &mut y, 1.0, false));
    assert!(e.contains("scaled") && e.contains("soft:0") && e.contains("to_device"), "{e}");

    let e = x.as_slice::<f32>().unwrap_err().to_string();
    assert!(e.contains("soft:0") && e.contains("to_device"), "{e}");

    let other = y.reshape(&[2, 5]).unwrap();
    let e = text(scaled(&x, &mut y, 1.0, false));
    assert!(e.contains("scaled") && e.contains("2 holders"), "{e}");
    drop(other);

    let without = Kernel { source: None, ..SCALED };
    fn args<'a>(x: &'a Tensor, y: &'a mut Tensor) -> [Arg<'a>; 4] {
        [Arg::In(x), Arg::Out(y), Arg::Real(1.0), Arg::Flag(false)]
    }
    let e = text(launch(&without, &mut args(&x, &mut y)));
    assert!(e.contains("scaled") && e.contains("has no PTX"), "{e}");

    const RENAMED: &[Param] = &[
        param("x", "in", "T"),
        param("y", "out", "T"),
        param("b", "val", "T"),
        param("over", "val", "flag"),
    ];
    let e = text(launch(&Kernel { params: RENAMED, ..SCALED }, &mut args(&x, &mut y)));
    assert!(e.contains("scaled.ptx") && e.contains("does not take `b`"), "{e}");

    let ids = Tensor::from_slice(&device, &[1i32], &[1]).unwrap();
    let e = text(scaled(&ids, &mut y, 1.0, false));
    assert!(e.contains("`x`") && e.contains("i32"), "{e}");

    let e = Device::open("soft:8").unwrap_err().to_string();
    assert!(e.contains("soft:0 to soft:7"), "{e}");
    assert!(Device::open("soft:x").is_err() && Device::open("cuda:x").is_err());
}

/// With checks on, an access past the end is the error of the launch that made it, though the pool's sizes are rounded.
#[test]
fn a_fault_is_the_error_of_its_launch() {
    let device = soft::device(&Machine::strict(), 0).unwrap();
    let x = values(&device, 70);
    let mut y = Tensor::empty(&device, x.spec()).unwrap();
    scaled(&x, &mut y, 2.0, false).unwrap();
    let e = scaled(&x, &mut y, 2.0, true).unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("scaled.ptx:28: global-oob") && text.contains("block (1, 0, 0), thread (6, 0, 0)"),
        "{text}"
    );
    assert_eq!(e.exit_code(), 1);
    let fresh = Tensor::empty(&device, x.spec()).unwrap();
    let e = scaled(&fresh, &mut y, 2.0, false).unwrap_err().to_string();
    assert!(e.contains("uninit-global"), "{e}");
    scaled(&x, &mut y, 2.0, false).unwrap();
}

#[test]
fn every_buffer_comes_back() {
    let machine = machine(Settings::default());
    let device = soft::device(&machine, 3).unwrap();
    let driver = device.driver().unwrap().clone();
    {
        let x = values(&device, 100_000);
        let mut y = Tensor::empty(&device, x.spec()).unwrap();
        scaled(&x, &mut y, 2.0, false).unwrap();
        let parts = y.split(&[Spec::new(DType::F32, &[16]).unwrap(); 3]).unwrap();
        assert!(driver.used() > 800_000);
        drop(Tensor::join(parts, &device, x.spec()).unwrap());
    }
    assert_eq!(device.stats().live_bytes, 0);
    device.trim();
    assert_eq!(driver.used(), 0);
    let held = values(&device, 10);
    drop(device);
    drop(held);
    assert_eq!(driver.used(), 0, "the pool goes with the last handle");
}

/// A kernel that stops itself says why: the comment of its line.
#[test]
fn a_trap_names_its_reason() {
    let device = soft::device(&machine(Settings::default()), 0).unwrap();
    let driver = device.driver().unwrap().as_ref();
    let head = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry stops()";
    let module =
        driver.load("stops.ptx", &format!("{head} {{\n    trap; // an id is out of range\n}}\n")).unwrap();
    let call = Call { module, entry: "stops", grid: [1; 3], block: [1; 3], shared_bytes: 0, params: &[] };
    let e = driver.launch(&call, driver.default_stream()).unwrap_err().to_string();
    let says = "stops.ptx:5: trap: the kernel stopped itself, because an id is out of range, in stops, block";
    assert!(e.contains(says), "{e}");
}

/// Parameters of `scaled` for buffers of 64 numbers.
fn arguments(x: u64, y: u64, a: f32) -> Vec<u8> {
    let mut params = Vec::new();
    for address in [x, y] {
        params.extend(address.to_le_bytes());
        params.extend([64, 0, 0, 0, 0, 0, 0, 0]);
    }
    params.truncate(28);
    params.extend(a.to_le_bytes());
    params.extend(0u32.to_le_bytes());
    params
}

/// What nobody wrote is that in a copy too, also on another device.
#[test]
fn a_copy_of_nothing_is_not_initialised() {
    let machine = Machine::strict();
    for to in [0, 1] {
        let (here, there) = (soft::device(&machine, 0).unwrap(), soft::device(&machine, to).unwrap());
        let (here, there) = (here.driver().unwrap().as_ref(), there.driver().unwrap().as_ref());
        let (x, y, z) = (here.alloc(256).unwrap(), there.alloc(256).unwrap(), there.alloc(256).unwrap());
        let (stream, module) = (there.default_stream(), there.load("scaled.ptx", PTX).unwrap());
        there.fill(z, 0, 4, 64, stream).unwrap();
        let copied = |n: u64| {
            here.fill(x, 0, 4, n, here.default_stream())?;
            here.copy(x, z, 256, here.default_stream())?;
            let params = arguments(z, y, 2.0);
            let (entry, grid, block) = ("scaled", [1; 3], [64, 1, 1]);
            there.launch(&Call { module, entry, grid, block, shared_bytes: 0, params: &params }, stream)
        };
        let e = copied(40).unwrap_err().to_string();
        assert!(e.contains("uninit-global") && e.contains("thread (40, 0, 0)"), "{e}");
        copied(64).unwrap();
    }
}

/// A copy in one stream and a kernel in another, ordered by an event or not.
fn relay(seed: u64, wait: bool) -> Vec<f32> {
    let machine = machine(Settings { seed, ..Settings::default() });
    let device = soft::device(&machine, 0).unwrap();
    let driver = device.driver().unwrap().as_ref();
    let (x, y) = (driver.alloc(256).unwrap(), driver.alloc(256).unwrap());
    let module = driver.load("scaled.ptx", PTX).unwrap();
    driver.fill(x, 0, 4, 64, driver.default_stream()).unwrap();
    let (copying, computing) = (driver.stream().unwrap(), driver.stream().unwrap());
    let arrived = driver.event().unwrap();
    driver.copy_in(x, bytemuck::cast_slice(&[1.0f32; 64]), copying).unwrap();
    driver.record(arrived, copying).unwrap();
    if wait {
        driver.wait(computing, arrived).unwrap();
    }
    let params = arguments(x, y, 3.0);
    let call =
        Call { module, entry: "scaled", grid: [1; 3], block: [64, 1, 1], shared_bytes: 0, params: &params };
    driver.launch(&call, computing).unwrap();
    let mut out = [0.0f32; 64];
    driver.copy_out(y, bytemuck::cast_slice_mut(&mut out), computing).unwrap();
    driver.synchronize().unwrap();
    [copying, computing].into_iter().for_each(|s| driver.close_stream(s));
    out.to_vec()
}

#[test]
fn work_is_deferred_so_that_a_missing_wait_shows_and_shows_again_with_the_same_seed() {
    assert!((0..20).all(|seed| relay(seed, true) == [3.0; 64]));
    let seen: Vec<f32> = (0..20).map(|seed| relay(seed, false)[0]).collect();
    assert!(seen.contains(&0.0) && seen.contains(&3.0), "{seen:?}");
    assert_eq!(seen, (0..20).map(|seed| relay(seed, false)[0]).collect::<Vec<_>>());
}

#[test]
fn events_measure_time_and_devices_copy_between_each_other() {
    let machine = machine(Settings::default());
    let devices: Vec<Device> = [0, 7].map(|i| soft::device(&machine, i).unwrap()).into();
    let x = values(&devices[0], 5000);
    let y = x.to_device(&devices[1]).unwrap();
    assert_eq!(y.device().name(), "soft:7");
    assert_eq!(x.to_f64().unwrap(), y.to_f64().unwrap());
    let e = {
        let mut z = Tensor::empty(&devices[1], x.spec()).unwrap();
        scaled(&x, &mut z, 1.0, false).unwrap_err().to_string()
    };
    assert!(e.contains("soft:7") && e.contains("soft:0"), "{e}");
    devices.into_iter().chain(drivers()).for_each(|d| measures(&d));
}

fn measures(device: &Device) {
    let driver = device.driver().unwrap();
    let (start, end) = (driver.event().unwrap(), driver.event().unwrap());
    assert!(driver.seconds_between(start, end).is_err());
    let stream = driver.stream().unwrap();
    driver.record(start, stream).unwrap();
    driver.record(end, stream).unwrap();
    driver.synchronize_event(end).unwrap();
    assert!(driver.seconds_between(start, end).unwrap() >= 0.0);
}

/// Ranks as threads, each with a device of its own, that wait for one another's events.
#[test]
fn threads_drive_devices_of_one_machine_at_once() {
    let machine = machine(Settings { seed: 3, ..Settings::default() });
    let devices: Vec<Device> = (0..4).map(|i| soft::device(&machine, i).unwrap()).collect();
    let sums: Vec<f64> = std::thread::scope(|s| {
        let run = |device: Device| {
            let x = values(&device, 300);
            let mut y = Tensor::zeros(&device, x.spec()).unwrap();
            for k in 0..20 {
                scaled(&x, &mut y, f64::from(k), false).unwrap();
            }
            y.to_f64().unwrap().iter().sum()
        };
        let threads: Vec<_> = devices.into_iter().map(|d| s.spawn(move || run(d))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(sums, [19.0 * 299.0 * 150.0; 4]);
}
