//! The types whose values kernels read and write.

pub(super) trait Number: Copy {
    const ZERO: Self;

    /// Whether a product of two results, rounded each, is as good as one that is rounded once.
    const PRECISE: bool;

    fn widen(self) -> f64;
    /// The nearest value of the type, the even one of two.
    fn narrow(wide: f64) -> Self;
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    const PRECISE: bool = true;

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn narrow(wide: f64) -> f32 {
        wide as f32
    }
}

/// The upper half of an `f32`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(pub u16);

impl Number for Bf16 {
    const ZERO: Bf16 = Bf16(0);
    const PRECISE: bool = false;

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.0) << 16))
    }

    #[inline(always)]
    fn narrow(wide: f64) -> Bf16 {
        let bits = (wide as f32).to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let not_a_number = bits >> 16 | 0x40;
        Bf16(if wide.is_nan() { not_a_number } else { rounded } as u16)
    }
}

/// A half of IEEE 754: five bits of exponent, ten of fraction.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct F16(pub u16);

/// Between the exponents of a half and a single.
const SHIFT: u32 = (127 - 15) << 23;
const INFINITY: u32 = 0x7f80_0000;

impl Number for F16 {
    const ZERO: F16 = F16(0);
    const PRECISE: bool = false;

    #[inline(always)]
    fn widen(self) -> f64 {
        let bits = u32::from(self.0);
        let sign = bits << 16 & 0x8000_0000;
        let shifted = (bits & 0x7fff) << 13;
        // A product, because numbers below the normal ones become normal.
        let scale = f32::from_bits(SHIFT + (127 << 23));
        let finite = (f32::from_bits(shifted) * scale).to_bits();
        let special = shifted | INFINITY;
        let is_special = bits & 0x7c00 == 0x7c00;
        f64::from(f32::from_bits(
            sign | if is_special { special } else { finite },
        ))
    }

    #[inline(always)]
    fn narrow(wide: f64) -> F16 {
        let bits = (wide as f32).to_bits();
        let sign = bits >> 16 & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let even = magnitude >> 13 & 1;
        let normal = magnitude.wrapping_sub(SHIFT).wrapping_add(0xfff + even) >> 13;
        // Adding one half leaves as many digits as the small ones have.
        let small = (f32::from_bits(magnitude) + 0.5)
            .to_bits()
            .wrapping_sub(0.5f32.to_bits());
        let large = if magnitude > INFINITY { 0x7e00 } else { 0x7c00 };
        let half = if magnitude >= 0x4780_0000 {
            large
        } else if magnitude < 0x3880_0000 {
            small
        } else {
            normal
        };
        F16((sign | half) as u16)
    }
}
