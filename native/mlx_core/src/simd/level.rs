//! The sets of instructions that kernels are compiled for, of which the best that the
//! processor has is taken.

use mlx_rs::Dtype;

use super::number::{Bf16, Number, F16};
use super::primitive::Entry;

/// A loop over what a call names. What it calls is inlined, so that all of it is compiled
/// for the level.
pub(super) trait Kernel {
    type Call;

    /// Safety: the call's pointers are those of so many elements of the type.
    unsafe fn run<L: Level, T: Number>(call: &Self::Call);
}

pub(crate) trait Level {
    /// `a * b + c`, rounded once where that is one instruction.
    fn fma(a: f64, b: f64, c: f64) -> f64;
    /// The same in single precision.
    fn fma_single(a: f32, b: f32, c: f32) -> f32;
}

#[cfg(target_arch = "x86_64")]
struct Fused;

#[cfg(target_arch = "x86_64")]
impl Level for Fused {
    #[inline(always)]
    fn fma(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn fma_single(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

struct Plain;

impl Level for Plain {
    #[inline(always)]
    fn fma(a: f64, b: f64, c: f64) -> f64 {
        // Where that is no instruction it is a call of the C library.
        if cfg!(target_arch = "aarch64") {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }

    #[inline(always)]
    fn fma_single(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(target_arch = "aarch64") {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }
}

/// The kernel as this processor runs it best, for types that it has.
pub(super) fn entry<K: Kernel>(dtype: Dtype) -> Option<Entry<K::Call>> {
    let levels = match dtype {
        Dtype::Float32 => entries::<K, f32>(),
        Dtype::Float16 => entries::<K, F16>(),
        Dtype::Bfloat16 => entries::<K, Bf16>(),
        _ => return None,
    };
    levels.into_iter().flatten().next()
}

/// The kernel for each level that this processor has, the best first.
#[cfg(target_arch = "x86_64")]
pub(super) fn entries<K: Kernel, T: Number>() -> [Option<Entry<K::Call>>; 3] {
    use std::arch::is_x86_feature_detected as has;
    let has_avx512 = has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("avx512bw");
    let has_avx2 = has!("avx2") && has!("fma");
    [
        has_avx512.then_some(avx512::<K, T> as Entry<K::Call>),
        has_avx2.then_some(avx2::<K, T> as Entry<K::Call>),
        Some(plain::<K, T>),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn entries<K: Kernel, T: Number>() -> [Option<Entry<K::Call>>; 1] {
    [Some(plain::<K, T>)]
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
unsafe extern "C" fn avx512<K: Kernel, T: Number>(call: *const K::Call) {
    // Safety: the primitive passes a call that is as the kernel asks.
    unsafe { K::run::<Fused, T>(&*call) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe extern "C" fn avx2<K: Kernel, T: Number>(call: *const K::Call) {
    // Safety: the primitive passes a call that is as the kernel asks.
    unsafe { K::run::<Fused, T>(&*call) }
}

/// What any processor of the architecture has.
unsafe extern "C" fn plain<K: Kernel, T: Number>(call: *const K::Call) {
    // Safety: the primitive passes a call that is as the kernel asks.
    unsafe { K::run::<Plain, T>(&*call) }
}
