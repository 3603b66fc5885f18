//! Updates at positions, some of which may be equal. A CPU takes the updates in their
//! order. A GPU takes them in any order and, but for sums of complex numbers, refuses
//! elements of eight bytes.

use mlx_rs::ops::{broadcast_to, zeros_dtype};
use mlx_rs::{Array, Dtype, Stream};

use super::gather_columns;
use crate::dtype::dtype_size;
use crate::error::Result;
use crate::ffi::{c_op, on_gpu, Arrays};
use crate::ops::number;

/// Adds each update; the half-precision types are summed in single precision.
pub(super) fn add(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    if is_nothing(x, updates) {
        return Ok(x.clone());
    }
    match x.dtype() {
        half @ (Dtype::Float16 | Dtype::Bfloat16) => {
            let (x, updates) = (
                x.as_dtype(Dtype::Float32)?,
                updates.as_dtype(Dtype::Float32)?,
            );
            Ok(scatter_add(&x, columns, &updates, axes, s)?.as_dtype(half)?)
        }
        Dtype::Int64 | Dtype::Uint64 if on_gpu(s) => add_in_limbs(x, columns, updates, axes, s),
        _ => scatter_add(x, columns, updates, axes, s),
    }
}

/// Puts each update; of several at one position the last one stays.
pub(super) fn put(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    if is_nothing(x, updates) {
        return Ok(x.clone());
    }
    if on_gpu(s) {
        put_in_any_order(x, columns, updates, axes, s)
    } else {
        scatter(x, columns, updates, axes, s)
    }
}

/// MLX divides by the sizes.
fn is_nothing(x: &Array, updates: &Array) -> bool {
    x.size() == 0 || updates.size() == 0
}

/// Sums of digits, wide enough that `updates` of them fit 32 bits, put together at the end.
fn add_in_limbs(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let count = columns.first().map_or(1, Array::size) as u64;
    let bits = [16, 8, 4, 2]
        .into_iter()
        .find(|bits| count << bits <= 1 << 32)
        .unwrap_or(1);
    let shifts: Vec<u64> = (0..64).step_by(bits).collect();
    let limbs = shifts.len() as i32;
    let shifts = Array::from_slice(&shifts, &[limbs]);
    let mask = number((1 << bits) - 1, Dtype::Uint64)?;

    let updates = updates.view_dtype(Dtype::Uint64)?.expand_dims(-1)?;
    let digits = c_op!(mlx_right_shift(updates.as_ptr(), shifts.as_ptr()), s)?;
    let digits = c_op!(mlx_bitwise_and(digits.as_ptr(), mask.as_ptr()), s)?;
    let shape = [x.shape(), &[limbs]].concat();
    let none = zeros_dtype(&shape, Dtype::Uint32)?;
    let sums = scatter_add(&none, columns, &digits.as_dtype(Dtype::Uint32)?, axes, s)?;
    let sums = sums.as_dtype(Dtype::Uint64)?;
    let sums = c_op!(mlx_left_shift(sums.as_ptr(), shifts.as_ptr()), s)?;
    let sum = sums.sum_axis(-1, false)?.view_dtype(x.dtype())?;
    Ok(x.add(&sum)?)
}

/// Gives equal positions equal updates, so that their order is nobody's business.
fn put_in_any_order(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let updates = last_of_equals(x, columns, updates, axes, s)?;
    if dtype_size(x.dtype()) < 8 {
        return scatter(x, columns, &updates, axes, s);
    }
    let halves = |array: &Array| array.expand_dims(-1)?.view_dtype(Dtype::Uint32);
    let put = scatter(&halves(x)?, columns, &halves(&updates)?, axes, s)?;
    Ok(put.view_dtype(x.dtype())?.squeeze_axes(&[-1])?)
}

/// Each update replaced by the last one at its position.
fn last_of_equals(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let batch = columns.first().map_or(&[][..], Array::shape);
    let count = columns.first().map_or(1, Array::size) as i32;
    if count == 1 {
        return Ok(updates.clone());
    }
    let places: Vec<i32> = axes.iter().map(|&axis| x.dim(axis)).collect();
    let every: Vec<i32> = (0..axes.len() as i32).collect();
    let ones = vec![1; places.len()];

    let order = c_op!(
        mlx_arange(0.0, f64::from(count), 1.0, Dtype::Int32.into()),
        s
    )?;
    let order = order.reshape(&[batch, &ones].concat())?;
    let first = broadcast_to(number(0, Dtype::Int32)?, &places)?;
    let columns_given = columns.iter().collect::<Vec<_>>();
    let last = c_op!(
        mlx_scatter_max(
            first.as_ptr(),
            Arrays::new(&columns_given).as_ptr(),
            order.as_ptr(),
            every.as_ptr(),
            every.len()
        ),
        s
    )?;
    let last = gather_columns(&last, columns, &every, &ones, s)?.reshape(&[count])?;

    let window = &updates.shape()[batch.len()..];
    let rows = updates.reshape(&[&[count], window].concat())?;
    let rows = c_op!(mlx_take_axis(rows.as_ptr(), last.as_ptr(), 0), s)?;
    Ok(rows.reshape(updates.shape())?)
}

fn scatter(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let columns = columns.iter().collect::<Vec<_>>();
    Ok(c_op!(
        mlx_scatter(
            x.as_ptr(),
            Arrays::new(&columns).as_ptr(),
            updates.as_ptr(),
            axes.as_ptr(),
            axes.len()
        ),
        s
    )?)
}

fn scatter_add(
    x: &Array,
    columns: &[Array],
    updates: &Array,
    axes: &[i32],
    s: &Stream,
) -> Result<Array> {
    let columns = columns.iter().collect::<Vec<_>>();
    Ok(c_op!(
        mlx_scatter_add(
            x.as_ptr(),
            Arrays::new(&columns).as_ptr(),
            updates.as_ptr(),
            axes.as_ptr(),
            axes.len()
        ),
        s
    )?)
}

/// What only a GPU runs gives the same on a CPU.
#[cfg(test)]
mod tests {
    use mlx_rs::{Device, DeviceType};

    use super::*;
    use crate::ffi;

    fn stream() -> Stream {
        crate::init();
        let stream = Stream::new_with_device(&Device::new(DeviceType::Cpu, 0));
        ffi::set_default_stream(&stream).unwrap();
        stream
    }

    fn columns() -> Vec<Array> {
        let rows = Array::from_slice(&[1i32, 0, 1, 2, 1], &[5]);
        let places = Array::from_slice(&[0i32, 1, 0, 1, 1], &[5]);
        vec![rows, places]
    }

    fn updates(dtype: Dtype) -> Array {
        let updates = Array::from_slice(&[-10i64, 20, -30, 40, 50], &[5, 1, 1]);
        updates.as_dtype(dtype).unwrap()
    }

    fn grid(dtype: Dtype) -> Array {
        let grid = Array::from_slice(&[1i64, 2, 3, 4, 5, 6], &[3, 2]);
        grid.as_dtype(dtype).unwrap()
    }

    fn same(a: &Array, b: &Array) -> bool {
        a.dtype() == b.dtype() && a.eq_values(b).unwrap()
    }

    #[test]
    fn puts_in_any_order_are_puts_in_order() {
        let s = stream();
        for dtype in [Dtype::Uint8, Dtype::Float32, Dtype::Int64, Dtype::Complex64] {
            let (x, updates) = (grid(dtype), updates(dtype));
            let ordered = scatter(&x, &columns(), &updates, &[0, 1], &s).unwrap();
            let unordered = put_in_any_order(&x, &columns(), &updates, &[0, 1], &s).unwrap();
            assert!(same(&ordered, &unordered), "{ordered} {unordered}");
        }
    }

    #[test]
    fn rows_put_in_any_order_are_put_in_order() {
        let s = stream();
        let rows = Array::from_slice(&[1i64, 2, 3, 4, 5, 6], &[3, 1, 2]);
        let at = vec![Array::from_slice(&[2u8, 0, 2], &[3])];
        let ordered = scatter(&grid(Dtype::Int64), &at, &rows, &[0], &s).unwrap();
        let unordered = put_in_any_order(&grid(Dtype::Int64), &at, &rows, &[0], &s).unwrap();
        assert!(same(&ordered, &unordered), "{ordered} {unordered}");
    }

    #[test]
    fn sums_of_limbs_are_sums() {
        let s = stream();
        for dtype in [Dtype::Int64, Dtype::Uint64] {
            let (x, updates) = (grid(dtype), updates(dtype));
            let sums = scatter_add(&x, &columns(), &updates, &[0, 1], &s).unwrap();
            let limbs = add_in_limbs(&x, &columns(), &updates, &[0, 1], &s).unwrap();
            assert!(same(&sums, &limbs), "{sums} {limbs}");
        }
    }

    #[test]
    fn many_limbs_do_not_overflow() {
        let s = stream();
        let count = 70_000;
        let x = Array::from_slice(&[i64::MAX, 0], &[2]);
        let updates = Array::from_slice(&vec![-1i64; count as usize], &[count, 1]);
        let at = vec![Array::from_slice(&vec![1i32; count as usize], &[count])];
        let sums = add_in_limbs(&x, &at, &updates, &[0], &s).unwrap();
        assert_eq!(sums.as_slice::<i64>(), [i64::MAX, -i64::from(count)]);
    }
}
