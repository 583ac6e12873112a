//! Registers that are filled when a frame begins: numbers, addresses, special registers.

use super::Place;
use super::block::Env;
use super::row::{LANES, Row};
use super::spaces::FUNCTIONS;
use crate::ptx::program::{Function, Special, Value};

/// Fills the constant registers of a frame in the lanes of `mask`.
pub(super) fn fill(f: &Function, env: &Env<'_>, local: u32, place: Place, rows: &mut [Row], mask: u32) {
    for c in &f.constants {
        let slot = c.slot as usize;
        let launch = env.launch;
        let all = match c.value {
            Value::Bits(bits) => bits,
            Value::Address(v, plus) => {
                launch.variables.get(v as usize).copied().unwrap_or(0).wrapping_add_signed(plus)
            }
            Value::Function(index) => FUNCTIONS + u64::from(index) * 16,
            Value::Local(at) => u64::from(local).wrapping_add_signed(at),
            Value::Dynamic(at) => u64::from(launch.static_shared()).wrapping_add_signed(at),
            Value::Special(s) => {
                let words = std::array::from_fn(|lane| special(s, env, place, lane as u32));
                match c.wide {
                    true => super::row::put::<u64>(rows, slot, words.map(u64::from), mask),
                    false => super::row::put::<u32>(rows, slot, words, mask),
                }
                continue;
            }
        };
        match c.wide {
            true => super::row::put(rows, slot, [all; LANES], mask),
            false => super::row::put(rows, slot, [all as u32; LANES], mask),
        }
    }
}

/// A special register of one lane.
fn special(s: Special, env: &Env<'_>, place: Place, lane: u32) -> u32 {
    let l = env.launch;
    let [x, y, z] = l.block;
    let t = place.warp * 32 + lane;
    let axis = |v: [u32; 3], a: u8| v.get(a as usize).copied().unwrap_or(0);
    let below = (1u32 << lane).wrapping_sub(1);
    match s {
        Special::Tid(a) => axis([t % x, t / x % y, t / x / y % z.max(1)], a),
        Special::Ntid(a) => axis(l.block, a),
        Special::Ctaid(a) => axis(place.block, a),
        Special::Nctaid(a) => axis(l.grid, a),
        Special::Lane => lane,
        Special::Warp => place.warp,
        Special::Warps => (x * y * z).div_ceil(32),
        Special::Sm => place.block[0] % super::launch::SMS,
        Special::Sms => super::launch::SMS,
        Special::GridId | Special::Zero => 0,
        Special::One => 1,
        Special::Below => below,
        Special::UpTo => below | 1 << lane,
        Special::Equal => 1 << lane,
        Special::From => !below,
        Special::Above => !(below | 1 << lane),
        Special::DynamicShared => l.dynamic_shared,
        Special::TotalShared => l.shared_bytes(),
    }
}
