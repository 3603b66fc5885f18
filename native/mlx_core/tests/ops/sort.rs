//! Elements in order.

use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    integers_of_every_type_are_sorted => every_integer;
    floats_are_sorted_with_nan_as_the_largest => every_float;
    equal_elements_keep_their_order => equals;
    any_axis_is_sorted => axes;
    the_largest_come_first_with_where_they_are => largest;
    few_of_many_are_chosen_in_the_same_order => few_of_many;
    nothing_is_sorted_into_nothing => empty;
}

fn sort(op: &'static str, x: Tensor, axis: i64, descending: bool, y: Tensor) -> Case {
    case(op)
        .on([x])
        .with([int(axis), Attribute::Bool(descending)])
        .gives(y)
}

fn both<T: Element>(values: &[T], order: &[u32], falling: &[u32]) -> Vec<Case> {
    let at = |order: &[u32]| -> Vec<T> { order.iter().map(|&i| values[i as usize]).collect() };
    vec![
        sort("sort", vector(values), 0, false, vector(&at(order))),
        sort("sort", vector(values), 0, true, vector(&at(falling))),
        sort("argsort", vector(values), 0, false, vector(order)),
        sort("argsort", vector(values), 0, true, vector(falling)),
    ]
}

fn every_integer() -> Vec<Case> {
    fn all<T: Integer>() -> Vec<Case> {
        let values = [T::MAX, T::of(5), T::MIN, T::of(7), T::of(6)];
        both(&values, &[2, 1, 4, 3, 0], &[0, 3, 4, 1, 2])
    }
    for_integers!(all()).concat()
}

fn every_float() -> Vec<Case> {
    fn all<T: Float>() -> Vec<Case> {
        let (infinity, nan) = (f64::INFINITY, f64::NAN);
        let values = floats::<T>(&[1.5, nan, -infinity, infinity, -2.0, 0.0]);
        both(&values, &[2, 4, 5, 0, 3, 1], &[1, 3, 0, 5, 4, 2])
    }
    for_floats!(all()).concat()
}

fn equals() -> Vec<Case> {
    let (order, falling): (Vec<u32>, Vec<u32>) = ((0..100).collect(), (0..100).collect());
    [
        both(&[2, 1, 2, 1, 2], &[1, 3, 0, 2, 4], &[0, 2, 4, 1, 3]),
        both(&[0.5f32; 100], &order, &falling),
    ]
    .concat()
}

fn axes() -> Vec<Case> {
    let x = || tensor(&[3, 1, 2, 0, 5, 4], &[2, 3]);
    let y = |values: &[i32]| tensor(values, &[2, 3]);
    let places = |values: &[u32]| tensor(values, &[2, 3]);
    vec![
        sort("sort", x(), 0, false, y(&[0, 1, 2, 3, 5, 4])),
        sort("sort", x(), 1, false, y(&[1, 2, 3, 0, 4, 5])),
        sort("sort", x(), 1, true, y(&[3, 2, 1, 5, 4, 0])),
        sort("argsort", x(), 0, true, places(&[0, 1, 1, 1, 0, 0])),
        sort("argsort", x(), 1, false, places(&[1, 2, 0, 0, 2, 1])),
    ]
}

fn top<T: Element>(x: Tensor, values: &[T], places: &[u32], dims: &[i64]) -> Case {
    let k = dims[dims.len() - 1];
    case("top_k")
        .on([x])
        .with([int(k)])
        .gives_all([tensor(values, dims), tensor(places, dims)])
}

fn largest() -> Vec<Case> {
    fn of_floats<T: Float>() -> Case {
        let x = floats::<T>(&[1.0, f64::NAN, 2.0, f64::INFINITY]);
        top(vector(&x), &[x[1], x[3], x[2]], &[1, 3, 2], &[3])
    }
    fn of_integers<T: Integer>() -> Case {
        let x = [T::of(1), T::MAX, T::MIN, T::MAX];
        top(vector(&x), &[T::MAX, T::MAX], &[1, 3], &[2])
    }
    let rows = tensor(&[1, 3, 2, 9, 7, 8], &[2, 3]);
    let of_rows = top(rows, &[3, 2, 9, 8], &[1, 2, 0, 2], &[2, 2]);
    [
        for_floats!(of_floats()),
        for_integers!(of_integers()),
        vec![of_rows],
    ]
    .concat()
}

/// So few that choosing pays before sorting; of equals, the first are chosen.
fn few_of_many() -> Vec<Case> {
    fn of_floats<T: Float>() -> Case {
        let mut x: Vec<T> = (0..100).map(|i| T::of(f64::from(i % 10))).collect();
        x[50] = T::of(f64::NAN);
        let nine = T::of(9.0);
        top(vector(&x), &[x[50], nine, nine], &[50, 9, 19], &[3])
    }
    let zeros: Vec<f32> = (0..100)
        .map(|i| if i % 2 == 0 { -0.0 } else { 0.0 })
        .collect();
    let first = top(vector(&zeros), &[-0.0f32, 0.0, -0.0], &[0, 1, 2], &[3]);
    [for_floats!(of_floats()), vec![first]].concat()
}

fn empty() -> Vec<Case> {
    let none = || tensor::<f32>(&[], &[2, 0]);
    vec![
        sort("sort", none(), 1, false, none()),
        sort("argsort", none(), 1, true, tensor::<u32>(&[], &[2, 0])),
    ]
}
