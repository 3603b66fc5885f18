//! Numbers that the host has given a program, which ops may act on without waiting for a device.

use std::cell::RefCell;

use mlx_rs::{Array, Dtype};
use smallvec::SmallVec;

/// What is known of a program's inputs: their registers and values.
pub(crate) type Numbers = SmallVec<[(usize, i64); 2]>;

thread_local! {
    /// The handles of the operands of the op that runs, and their values.
    static OPERANDS: RefCell<Numbers> = RefCell::default();
}

/// The integer that bytes of the host are, if they are a scalar.
pub(crate) fn integer(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Option<i64> {
    if !shape.is_empty() {
        return None;
    }
    match dtype {
        Dtype::Int32 => Some(i32::from_ne_bytes(bytes.try_into().ok()?).into()),
        Dtype::Int64 => Some(i64::from_ne_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// Runs an op whose operands have these numbers. They are alive meanwhile, so a handle is of one
/// operand.
pub(crate) fn during<T>(
    operands: impl Iterator<Item = (usize, i64)>,
    run: impl FnOnce() -> T,
) -> T {
    struct Restore(Numbers);
    impl Drop for Restore {
        fn drop(&mut self) {
            OPERANDS.set(std::mem::take(&mut self.0));
        }
    }
    let _restore = Restore(OPERANDS.replace(operands.collect()));
    run()
}

/// The number that an operand is, if the host has given it.
pub(crate) fn number(operand: &Array) -> Option<i64> {
    let handle = handle(operand);
    OPERANDS.with_borrow(|operands| {
        let found = operands.iter().find(|(known, _)| *known == handle);
        found.map(|(_, number)| *number)
    })
}

pub(crate) fn handle(array: &Array) -> usize {
    array.as_ptr().ctx as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_are_known() {
        assert_eq!(integer(&7i32.to_ne_bytes(), &[], Dtype::Int32), Some(7));
        assert_eq!(integer(&(-7i64).to_ne_bytes(), &[], Dtype::Int64), Some(-7));
        assert_eq!(integer(&7i32.to_ne_bytes(), &[1], Dtype::Int32), None);
        assert_eq!(integer(&7f32.to_ne_bytes(), &[], Dtype::Float32), None);
    }

    #[test]
    fn numbers_are_those_of_the_innermost_op() {
        let [a, b] = [Array::from_int(1), Array::from_int(2)];
        let known = |array: &Array, number| [(handle(array), number)].into_iter();
        during(known(&a, 5), || {
            assert_eq!((number(&a), number(&b)), (Some(5), None));
            during(known(&b, 6), || {
                assert_eq!((number(&a), number(&b)), (None, Some(6)))
            });
            assert_eq!(number(&a), Some(5));
        });
        assert_eq!(number(&a), None);
    }
}
