//! The ring between devices: the bits of the host's ring, what is copied, and that its waits are needed.

use ringtape::comm::{Algorithm, Reduce, device_ring, threads};
use ringtape::device::soft::{self, Machine, Settings};
use ringtape::device::{Call, Device, Driver, Event, Module, Stream};
use ringtape::error::Result;
use ringtape::tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Values whose sum depends on the order.
fn values(rank: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((rank * 7919 + i * 104_729) % 10_007) as f32 * 1.1e-3 - 3.3).collect()
}

fn machine(seed: u64) -> Arc<Machine> {
    Arc::new(Machine::new(Settings { check: true, seed, ..Settings::default() }))
}

/// What each rank has after `rounds` sums, and what it copied.
fn run(devices: &[Device], n: usize, rounds: usize) -> Vec<Result<(Vec<f32>, u64)>> {
    std::thread::scope(|scope| {
        let rank = |mut ring: ringtape::comm::DeviceRing| {
            let device = devices[ring.rank()].clone();
            scope.spawn(move || {
                let mut x = Tensor::from_slice(&device, &values(ring.rank(), n), &[n])?;
                (0..rounds).try_for_each(|_| ring.all_reduce(&mut x))?;
                Ok((x.to_host()?.as_slice::<f32>()?.to_vec(), ring.copied()))
            })
        };
        let all: Vec<_> = device_ring::open(devices).unwrap().into_iter().map(rank).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn host(p: usize, n: usize, rounds: usize) -> Vec<f32> {
    let all = threads::run(p, |mut world| {
        world.set_algorithm(Some(Algorithm::Ring));
        let mut x = values(world.rank(), n);
        (0..rounds).try_for_each(|_| world.all_reduce(&mut x, Reduce::Sum))?;
        Ok(x)
    });
    all.into_iter().next().unwrap().unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_bits_are_those_of_the_hosts_ring_and_the_payload_is_the_least() {
    for p in [1, 2, 3, 5, 8] {
        for (n, seed) in [(0, 1), (1, 2), (2, 3), (7, 4), (255, 5), (1003, 6), (4099, 7)] {
            let machine = machine(seed);
            let devices: Vec<_> = (0..p).map(|r| soft::device(&machine, r as u32).unwrap()).collect();
            let want = bits(&host(p, n, 2));
            let all: Vec<_> = run(&devices, n, 2).into_iter().map(Result::unwrap).collect();
            for (rank, (x, _)) in all.iter().enumerate() {
                assert!(bits(x) == want, "{p} ranks, {n} elements, rank {rank}");
            }
            let copied: u64 = all.iter().map(|(_, copied)| copied).sum();
            assert_eq!(copied, (2 * 2 * (p - 1) * n * 4) as u64, "{p} ranks, {n} elements");
        }
    }
}

/// Through the crate `cust`; two ranks share a device where there is one.
#[cfg(feature = "cuda")]
#[test]
fn the_bits_are_those_of_the_hosts_ring_through_the_cuda_driver_too() {
    let zero = Device::open("cuda:0").unwrap();
    let one = Device::open("cuda:1").unwrap_or_else(|_| zero.clone());
    for (p, n) in [(2, 1003), (3, 4099)] {
        let devices: Vec<_> = (0..p).map(|r| if r % 2 == 0 { zero.clone() } else { one.clone() }).collect();
        for (x, copied) in run(&devices, n, 2).into_iter().map(Result::unwrap) {
            assert!(bits(&x) == bits(&host(p, n, 2)) && copied > 0, "{p} ranks, {n} elements");
        }
    }
}

#[test]
fn lengths_that_differ_are_an_error_on_every_rank() {
    let machine = machine(0);
    let devices = [0, 1, 2].map(|r| soft::device(&machine, r).unwrap());
    let rings = device_ring::open(&devices).unwrap();
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let rank = |mut ring: ringtape::comm::DeviceRing| {
            let device = devices[ring.rank()].clone();
            scope.spawn(move || {
                let n = 100 + 10 * (ring.rank() / 2);
                ring.all_reduce(&mut Tensor::from_slice(&device, &values(0, n), &[n])?)
            })
        };
        let all: Vec<_> = rings.into_iter().map(rank).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(results.iter().all(Result::is_err), "{results:?}");
}

#[test]
fn a_rank_that_is_gone_is_no_error_of_the_others_devices() {
    let machine = machine(0);
    let devices = [0, 1, 2].map(|r| soft::device(&machine, r).unwrap());
    let mut rings = device_ring::open(&devices).unwrap();
    drop(rings.remove(1));
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let rank = |mut ring: ringtape::comm::DeviceRing| {
            let device = devices[ring.rank()].clone();
            scope.spawn(move || ring.all_reduce(&mut Tensor::from_slice(&device, &values(0, 100), &[100])?))
        };
        let all: Vec<_> = rings.into_iter().map(rank).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for e in results.into_iter().map(Result::unwrap_err) {
        assert!(e.exit_code() == 17 && e.to_string().contains("neighbour"), "{e}");
    }
}

/// A driver that forgets its wait number `forget`.
struct Forgetful {
    inner: Arc<dyn Driver>,
    forget: usize,
    waits: AtomicUsize,
}

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        $(fn $name(&self, $($arg: $ty),*) $(-> $out)? { self.inner.$name($($arg),*) })*
    };
}

impl Driver for Forgetful {
    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        let number = self.waits.fetch_add(1, Relaxed);
        if number == self.forget { Ok(()) } else { self.inner.wait(stream, event) }
    }
    passed_on! {
        description() -> String;
        kind() -> &'static str;
        alloc(bytes: u64) -> Result<u64>;
        free(address: u64);
        used() -> u64;
        copy_in(to: u64, from: &[u8], stream: Stream) -> Result<()>;
        copy_out(from: u64, to: &mut [u8], stream: Stream) -> Result<()>;
        copy(from: u64, to: u64, bytes: u64, stream: Stream) -> Result<()>;
        fill(at: u64, value: u32, size: u32, n: u64, stream: Stream) -> Result<()>;
        load(name: &str, ptx: &str) -> Result<Module>;
        launch(call: &Call<'_>, stream: Stream) -> Result<()>;
        default_stream() -> Stream;
        stream() -> Result<Stream>;
        side_stream() -> Result<Stream>;
        close_stream(stream: Stream);
        event() -> Result<Event>;
        close_event(event: Event);
        record(event: Event, stream: Stream) -> Result<()>;
        seconds_between(start: Event, end: Event) -> Result<f64>;
        synchronize_event(event: Event) -> Result<()>;
        synchronize_stream(stream: Stream) -> Result<()>;
        synchronize() -> Result<()>;
    }
}

/// The first of so many seeds that gives wrong bits or a fault, when rank 0 of three forgets a wait.
fn caught(forget: usize, seeds: u64) -> Option<u64> {
    let n = 301;
    let want = bits(&host(3, n, 1));
    let wrong = |seed: &u64| {
        let machine = machine(*seed);
        let mut devices = [0, 1, 2].map(|r| soft::device(&machine, r).unwrap());
        let inner = Arc::clone(devices[0].ptx_driver().unwrap());
        let driver = Forgetful { inner, forget, waits: AtomicUsize::new(0) };
        devices[0] = Device::over("soft:0", Arc::new(driver), true);
        run(&devices, n, 1).iter().any(|r| !r.as_ref().is_ok_and(|(x, _)| bits(x) == want))
    };
    (0..seeds).find(wrong)
}

#[test]
fn a_forgotten_wait_is_seen_with_some_seed_and_none_without() {
    assert_eq!(caught(usize::MAX, 24), None, "nothing forgotten");
    // Waits 0 and 1 are for the default stream. Wait 3 is of the first sum for its copy, wait 6 of the second step's copy for the
    // sum on the rank before, wait 7 of the same copy for the sum that still reads the scratch memory. Threads have their part
    // in which seeds see it, so there are many.
    for forget in [3, 6, 7] {
        assert!(caught(forget, 200).is_some(), "wait {forget}");
    }
}
