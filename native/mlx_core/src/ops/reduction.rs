//! Fewer elements: sums, products, extremes and where they are.

use mlx_rs::ops::indexing::{argmax_axis, argmin_axis};

use super::ops;
use crate::attribute::Shape;
use crate::ffi::c_op;

ops! {
    /// The sum over axes, which stay with size 1.
    sum(x) { axes: Shape } => x.sum_axes(&axes, true);
    /// The product over axes, which stay with size 1.
    product(x) { axes: Shape } => x.prod_axes(&axes, true);
    /// The largest over axes, which stay with size 1; NaN if there is one.
    reduce_max(x) { axes: Shape } => x.max_axes(&axes, true);
    /// The smallest over axes, which stay with size 1; NaN if there is one.
    reduce_min(x) { axes: Shape } => x.min_axes(&axes, true);
    /// Whether all are true over axes, which stay with size 1.
    all(x) { axes: Shape } => x.all_axes(&axes, true);
    /// Whether any is true over axes, which stay with size 1.
    any(x) { axes: Shape } => x.any_axes(&axes, true);
    /// Where the first largest is along an axis, which stays with size 1.
    argmax(x) { axis: i32 } => argmax_axis(x, axis, true);
    /// Where the first smallest is along an axis, which stays with size 1.
    argmin(x) { axis: i32 } => argmin_axis(x, axis, true);

    /// The sums of all elements up to each along an axis, or from each if reversed.
    cumulative_sum(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cumsum_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s);
    /// The products of all elements up to each along an axis, or from each.
    cumulative_product(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cumprod_axis(x.as_ptr(), axis, reverse, true, SAME_TYPE), s);
    /// The largest of all elements up to each along an axis, or from each.
    cumulative_max(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cummax_axis(x.as_ptr(), axis, reverse, true), s);
    /// The smallest of all elements up to each along an axis, or from each.
    cumulative_min(x) { axis: i32, reverse: bool } |s| =>
        c_op!(mlx_cummin_axis(x.as_ptr(), axis, reverse, true), s);
}

const SAME_TYPE: mlx_sys::mlx_optional_dtype = mlx_sys::mlx_optional_dtype {
    value: mlx_sys::mlx_dtype__MLX_FLOAT32,
    has_value: false,
};
