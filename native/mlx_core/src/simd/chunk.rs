//! Elements of an array in double precision, as many at once as keep a processor busy.

use super::number::Number;

/// Some vectors, so that the processor has several formulas to work at.
pub(super) const CHUNK: usize = 16;

pub(super) type Chunk = [f64; CHUNK];

/// Where chunks begin, and how many elements each has.
#[inline(always)]
pub(super) fn chunks(length: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length.div_ceil(CHUNK)).map(move |chunk| {
        let at = chunk * CHUNK;
        (at, CHUNK.min(length - at))
    })
}

/// So many elements, and `rest` in the places of those that are missing.
///
/// Safety: so many elements are there.
#[inline(always)]
pub(super) unsafe fn load<T: Number>(from: *const T, count: usize, rest: f64) -> Chunk {
    if count == CHUNK {
        // Safety: as the caller's; elements may lie anywhere that their type allows.
        let narrow = unsafe { from.cast::<[T; CHUNK]>().read_unaligned() };
        let mut chunk = [0.0; CHUNK];
        // A loop, because the compiler may leave what `map` is given a function of its own.
        for (wide, narrow) in chunk.iter_mut().zip(narrow) {
            *wide = narrow.widen();
        }
        return chunk;
    }
    let mut chunk = [rest; CHUNK];
    for (at, wide) in chunk.iter_mut().enumerate().take(count) {
        // Safety: as the caller's.
        *wide = unsafe { from.add(at).read() }.widen();
    }
    chunk
}

/// Safety: there is room for so many elements.
#[inline(always)]
pub(super) unsafe fn store<T: Number>(to: *mut T, count: usize, chunk: Chunk) {
    let mut narrow = [T::ZERO; CHUNK];
    for (narrow, wide) in narrow.iter_mut().zip(chunk) {
        *narrow = T::narrow(wide);
    }
    if count == CHUNK {
        // Safety: as the caller's.
        return unsafe { to.cast::<[T; CHUNK]>().write_unaligned(narrow) };
    }
    for (at, &value) in narrow.iter().enumerate().take(count) {
        // Safety: as the caller's.
        unsafe { to.add(at).write(value) };
    }
}
