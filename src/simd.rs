//! One body, several instruction sets: [`vectorized!`](crate::vectorized!) compiles a plain loop for AVX-512, AVX2 and the
//! baseline, and chooses at run time, so no binary depends on the machine that built it.
//!
//! The variable `RINGTAPE_SIMD=avx512|avx2|plain` forces a narrower set (never a wider one than the processor has);
//! `avx512` is AVX-512 without its products of bf16.

use std::sync::OnceLock;

/// Instruction sets with a compiled copy of each vectorised kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The target's baseline (SSE2 on x86-64, NEON on AArch64).
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and FMA.
    Avx512,
}

/// The instruction set in use, decided once.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let has = detected();
        match std::env::var("RINGTAPE_SIMD").as_deref() {
            Ok("plain") => Isa::Plain,
            Ok("avx2") => has.min(Isa::Avx2),
            _ => has,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("fma") {
        Isa::Avx512
    } else if has!("avx2") && has!("fma") {
        Isa::Avx2
    } else {
        Isa::Plain
    }
}

/// True when products of bf16 have instructions: AVX-512 BF16, unless a narrower set is forced.
pub fn bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static BF16: OnceLock<bool> = OnceLock::new();
        *BF16.get_or_init(|| {
            let forced = std::env::var("RINGTAPE_SIMD").is_ok_and(|v| v == "avx512");
            isa() == Isa::Avx512 && !forced && std::arch::is_x86_feature_detected!("avx512bf16")
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Isa {
    Isa::Plain
}

/// Bit i of the words: `x[i]` is not ≤ `theta[i]`, or `theta[0]` where that is the only one. A NaN on either side sets the bit; bits
/// beyond x are 0.
pub fn above(x: &[f32], theta: &[f32], words: &mut [i32]) {
    assert!(
        words.len() == x.len().div_ceil(32) && (theta.len() == 1 || theta.len() == x.len()),
        "a bit for each x"
    );
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: isa() returns Avx512 only where every feature that this is compiled for was detected; the extents were compared.
        #[allow(unsafe_code, reason = "a call into code compiled for detected processor features")]
        return unsafe { above_avx512(x, theta, words) };
    }
    above_plain(x, theta, words);
}

/// [`above`] bit by bit, in any type.
pub fn above_plain<T: Copy + PartialOrd>(x: &[T], theta: &[T], words: &mut [i32]) {
    for (i, (word, x)) in words.iter_mut().zip(x.chunks(32)).enumerate() {
        let mut bits = 0u32;
        for (l, &x) in x.iter().enumerate() {
            let theta = if theta.len() == 1 { theta[0] } else { theta[32 * i + l] };
            let below = x <= theta;
            bits |= u32::from(!below) << l;
        }
        *word = bits as i32;
    }
}

/// # Safety
/// The processor has AVX-512 F and DQ; `theta` has one number or as many as x, `words` one word for each 32 of x.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
#[allow(unsafe_code, reason = "masked vector loads through raw pointers")]
unsafe fn above_avx512(x: &[f32], theta: &[f32], words: &mut [i32]) {
    use std::arch::x86_64::*;
    let all = _mm512_set1_ps(theta[0]);
    for (i, word) in words.iter_mut().enumerate() {
        let mut bits = 0;
        for half in 0..2 {
            let from = 32 * i + 16 * half;
            let count = x.len().saturating_sub(from).min(16) as u32;
            let mask = ((1u32 << count) - 1) as __mmask16;
            // SAFETY: a masked load touches no element whose bit is 0, and the others lie in the slices.
            let (a, b) = unsafe {
                let each = || _mm512_maskz_loadu_ps(mask, theta.as_ptr().wrapping_add(from));
                let b = if theta.len() == 1 { all } else { each() };
                (_mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(from)), b)
            };
            bits |= u32::from(_mm512_mask_cmp_ps_mask::<_CMP_NLE_UQ>(mask, a, b)) << (16 * half);
        }
        *word = bits as i32;
    }
}

/// Defines functions whose body is compiled once per instruction set and chosen at run time. Everything that the body
/// calls in its hot loop must be `#[inline(always)]`, as a kernel's arithmetic is.
///
/// Generic parameters are written `<T: Real>` or `<U: Unary, T: Real>`.
#[macro_export]
macro_rules! vectorized {
    ($( $(#[$doc:meta])* $vis:vis fn $name:ident $(<$($g:ident : $bound:path),+>)? ($($a:ident : $t:ty),* $(,)?) $(-> $r:ty)? $body:block )*) => { $(
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, clippy::eq_op)]
        $vis fn $name $(<$($g: $bound),+>)? ($($a: $t),*) $(-> $r)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($g: $bound),+>)? ($($a: $t),*) $(-> $r)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($g: $bound),+>)? ($($a: $t),*) $(-> $r)? { body $(::<$($g),+>)? ($($a),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($g: $bound),+>)? ($($a: $t),*) $(-> $r)? { body $(::<$($g),+>)? ($($a),*) }
                match $crate::simd::isa() {
                    // SAFETY: isa() returns Avx512 only where every feature that the copy is compiled for was detected.
                    #[allow(unsafe_code, reason = "a call into code compiled for detected processor features")]
                    $crate::simd::Isa::Avx512 => return unsafe { avx512 $(::<$($g),+>)? ($($a),*) },
                    // SAFETY: as above, for AVX2 and FMA.
                    #[allow(unsafe_code, reason = "a call into code compiled for detected processor features")]
                    $crate::simd::Isa::Avx2 => return unsafe { avx2 $(::<$($g),+>)? ($($a),*) },
                    $crate::simd::Isa::Plain => {}
                }
            }
            body $(::<$($g),+>)? ($($a),*)
        }
    )* };
}
