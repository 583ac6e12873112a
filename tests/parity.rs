//! Every op on the software CUDA device against the CPU, from the ops' own samples: with bounds, uninitialised reads and
//! races checked, and with every approximate instruction as wrong as its documentation allows.

use ringtape::check;
use ringtape::device::soft::{self, Machine};
use ringtape::ops;

#[test]
fn every_op_computes_on_the_software_device_what_the_cpu_computes() {
    let device = soft::device(&Machine::strict(), 0).unwrap();
    examine(&device);
    device.trim();
    assert_eq!(device.driver().unwrap().used(), 0, "every buffer is freed");
}

/// The same through `cust`: on a GPU, or with RUNTIME_CUDA=soft on the software device.
#[cfg(feature = "cuda")]
#[test]
fn every_op_computes_through_cust_what_the_cpu_computes() {
    let device = ringtape::device::Device::open("cuda:0").unwrap();
    examine(&device);
    device.trim();
    assert_eq!(device.driver().unwrap().used(), 0, "every buffer is freed");
}

fn examine(device: &ringtape::device::Device) {
    let mut wrong = Vec::new();
    for entry in ops::ALL {
        let verdicts = check::on_device(entry, device);
        let failed: Vec<_> = verdicts.iter().filter_map(|v| Some((v, v.failure.as_ref()?))).collect();
        wrong.extend(failed.iter().map(|(v, f)| format!("{} / {}: {f}", v.op, v.sample)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
