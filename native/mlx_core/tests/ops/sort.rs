//! Elements in order.

use mlx_core::Attribute;

use crate::case::*;
use crate::numbers::*;

tests! {
    integers_of_every_type_are_sorted => sorted_integers;
    floats_of_every_type_are_sorted => sorted_floats;
    equal_elements_keep_their_order => ties;
    any_axis_is_sorted => axes;
    nothing_is_sorted_to_nothing => empty;
    the_largest_come_first => largest;
    missing_axes_are_refused => misfits;
}

fn ordered(op: &'static str, x: Tensor, axis: i64, descending: bool) -> Case {
    case(op)
        .on([x])
        .with([int(axis), Attribute::Bool(descending)])
}

fn sort(x: Tensor, axis: i64, descending: bool, y: Tensor) -> Case {
    ordered("sort", x, axis, descending).gives(y)
}

fn argsort(x: Tensor, axis: i64, descending: bool, y: Tensor) -> Case {
    ordered("argsort", x, axis, descending).gives(y)
}

fn sorted_integers() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Vec<Case> {
        let (low, high) = (T::MIN, T::MAX);
        let [a, b] = [3, 100].map(T::of);
        let x = vector(&[b, high, a, low, b]);
        vec![
            sort(x.clone(), 0, false, vector(&[low, a, b, b, high])),
            sort(x.clone(), 0, true, vector(&[high, b, b, a, low])),
            argsort(x.clone(), 0, false, vector(&[3u32, 2, 0, 4, 1])),
            argsort(x, 0, true, vector(&[1u32, 0, 4, 2, 3])),
        ]
    }
    for_integers!(of_integers()).concat()
}

fn sorted_floats() -> Vec<Case> {
    fn of_floats<T: Float>() -> Vec<Case> {
        let x = [f64::NAN, 1.5, f64::NEG_INFINITY, f64::INFINITY, -2.0];
        let order = [2usize, 4, 1, 3, 0];
        let up = floats::<T>(&order.map(|i| x[i]));
        let down: Vec<T> = up.iter().rev().copied().collect();
        let x = vector(&floats::<T>(&x));
        vec![
            sort(x.clone(), 0, false, vector(&up)),
            sort(x.clone(), 0, true, vector(&down)),
            argsort(x.clone(), 0, false, vector(&order.map(|i| i as u32))),
            argsort(x, 0, true, vector(&[0u32, 3, 1, 4, 2])),
        ]
    }
    for_floats!(of_floats()).concat()
}

fn ties() -> Vec<Case> {
    fn of_floats<T: Float>() -> Vec<Case> {
        let x = vector(&floats::<T>(&[
            0.0,
            -0.0,
            1.0,
            -0.0,
            0.0,
            f64::NAN,
            1.0,
            f64::NAN,
        ]));
        let up = [0.0, -0.0, -0.0, 0.0, 1.0, 1.0, f64::NAN, f64::NAN];
        let down = [f64::NAN, f64::NAN, 1.0, 1.0, 0.0, -0.0, -0.0, 0.0];
        vec![
            sort(x.clone(), 0, false, vector(&floats::<T>(&up))),
            sort(x.clone(), 0, true, vector(&floats::<T>(&down))),
            argsort(x.clone(), 0, false, vector(&[0u32, 1, 3, 4, 2, 6, 5, 7])),
            argsort(x, 0, true, vector(&[5u32, 7, 2, 6, 0, 1, 3, 4])),
        ]
    }
    let many: Vec<u8> = (0..3000).map(|i| (i * 7 % 3) as u8).collect();
    let places = |value: u32| (0..3000u32).filter(move |i| i * 7 % 3 == value);
    let up: Vec<u32> = [0, 1, 2].into_iter().flat_map(places).collect();
    let down: Vec<u32> = [2, 1, 0].into_iter().flat_map(places).collect();
    let mut cases = for_floats!(of_floats()).concat();
    cases.push(argsort(vector(&many), 0, false, vector(&up)));
    cases.push(argsort(vector(&many), 0, true, vector(&down)));
    cases
}

fn axes() -> Vec<Case> {
    let x = tensor(&[3i16, 1, 2, 0, 5, 4], &[2, 3]);
    vec![
        sort(x.clone(), 0, false, tensor(&[0i16, 1, 2, 3, 5, 4], &[2, 3])),
        sort(x.clone(), 0, true, tensor(&[3i16, 5, 4, 0, 1, 2], &[2, 3])),
        sort(x.clone(), 1, false, tensor(&[1i16, 2, 3, 0, 4, 5], &[2, 3])),
        sort(x.clone(), 1, true, tensor(&[3i16, 2, 1, 5, 4, 0], &[2, 3])),
        argsort(x.clone(), 0, true, tensor(&[0u32, 1, 1, 1, 0, 0], &[2, 3])),
        argsort(x, 1, true, tensor(&[0u32, 2, 1, 1, 2, 0], &[2, 3])),
        sort(tensor(&[7u8], &[1, 1]), 0, true, tensor(&[7u8], &[1, 1])),
    ]
}

fn empty() -> Vec<Case> {
    let of = |dims: &[i64]| tensor::<f32>(&[], dims);
    [[0, 3], [3, 0]]
        .iter()
        .flat_map(|dims| {
            let order = tensor::<u32>(&[], dims);
            [0, 1].into_iter().flat_map(move |axis| {
                vec![
                    sort(of(dims), axis, false, of(dims)),
                    sort(of(dims), axis, true, of(dims)),
                    argsort(of(dims), axis, true, order.clone()),
                ]
            })
        })
        .collect()
}

/// The first of its two results.
fn top_k(x: Tensor, k: i64, values: Tensor) -> Case {
    case("top_k").on([x]).with([int(k)]).gives(values)
}

fn largest() -> Vec<Case> {
    fn of_integers<T: Integer>() -> Vec<Case> {
        let (low, high) = (T::MIN, T::MAX);
        let few = vector(&integers::<T>(&[3, 100, 7]));
        let mut many = vec![low; 100];
        (many[17], many[60]) = (high, T::of(5));
        vec![
            top_k(few.clone(), 1, vector(&integers::<T>(&[100]))),
            top_k(few, 3, vector(&integers::<T>(&[100, 7, 3]))),
            top_k(vector(&many), 3, vector(&[high, T::of(5), low])),
        ]
    }
    fn of_floats<T: Float>() -> Vec<Case> {
        let specials = [
            -1.0,
            f64::NEG_INFINITY,
            f64::NAN,
            -0.0,
            f64::INFINITY,
            0.0,
            2.0,
        ];
        let mut x = vec![f64::NEG_INFINITY; 93];
        x.extend(specials);
        let y = [f64::NAN, f64::INFINITY, 2.0, -0.0, 0.0, -1.0];
        vec![
            top_k(vector(&floats::<T>(&specials)), 6, vector(&floats::<T>(&y))),
            top_k(vector(&floats::<T>(&x)), 6, vector(&floats::<T>(&y))),
        ]
    }
    let rows = tensor(&[1f32, 3.0, 2.0, 6.0, 4.0, 5.0], &[2, 3]);
    let mut cases = [for_integers!(of_integers()), for_floats!(of_floats())].concat();
    cases.push(vec![top_k(
        rows,
        2,
        tensor(&[3f32, 2.0, 6.0, 5.0], &[2, 2]),
    )]);
    cases.concat()
}

fn misfits() -> Vec<Case> {
    let x = || vector(&[1i32, 2]);
    [
        ordered("sort", x(), 1, false),
        ordered("sort", x(), 1, true),
        ordered("argsort", x(), 1, false),
        ordered("argsort", x(), 1, true),
        case("top_k").on([scalar(1i32)]).with([int(1)]),
    ]
    .map(Case::refused)
    .into()
}
