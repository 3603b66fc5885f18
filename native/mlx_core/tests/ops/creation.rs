//! Arrays from nothing but attributes.

use mlx_core::{Attribute, Dtype};

use crate::case::*;
use crate::numbers::*;

tests! {
    full_repeats_a_value_of_any_type => full_of_each_type;
    full_of_no_dimensions_is_the_value => full_scalars;
    full_checks_its_bytes_and_shape => wrong_fulls;
    arange_counts_from_zero => aranges;
    eye_has_ones_on_the_diagonal => eyes;
}

fn value<T: Element>(value: T) -> Attribute {
    Attribute::Bytes(value.bytes())
}

fn dtype<T: Element>() -> Attribute {
    Attribute::Dtype(T::DTYPE)
}

fn full<T: Element>(fill: T) -> Case {
    case("full")
        .with([value(fill), ints(&[2, 3]), dtype::<T>()])
        .gives(tensor(&[fill; 6], &[2, 3]))
}

fn full_of_each_type() -> Vec<Case> {
    fn number<T: Float>() -> Case {
        full(T::of(-1.5))
    }
    fn corner<T: Integer>() -> Case {
        full(T::MIN)
    }
    let others = vec![
        full(true),
        full([1.5f32, -2.0]),
        full(u64::MAX),
        full(f64::NAN),
        full(-0.0f32),
    ];
    [for_floats!(number()), for_integers!(corner()), others].concat()
}

fn full_scalars() -> Vec<Case> {
    let attributes = |dims: &[i64]| [value(7i64), ints(dims), dtype::<i64>()];
    vec![
        case("full").with(attributes(&[])).gives(scalar(7i64)),
        case("full").with(attributes(&[1])).gives(vector(&[7i64])),
        case("full")
            .with(attributes(&[0, 2]))
            .gives(tensor::<i64>(&[], &[0, 2])),
    ]
}

fn wrong_fulls() -> Vec<Case> {
    let attributes = |bytes: &[u8], dims: &[i64]| {
        let bytes = Attribute::Bytes(bytes.to_vec());
        [bytes, ints(dims), Attribute::Dtype(Dtype::Float32)]
    };
    let size = "a tensor of f32 has 4 bytes, the binary has";
    vec![
        case("full").with(attributes(&[0; 3], &[2])).fails(size),
        case("full").with(attributes(&[0; 8], &[2])).fails(size),
        case("full").with(attributes(&[], &[])).fails(size),
        case("full")
            .with(attributes(&[0; 4], &[-2]))
            .fails("full()"),
    ]
}

fn aranges() -> Vec<Case> {
    fn integers_to_5<T: Integer>() -> Case {
        case("arange")
            .with([int(5), dtype::<T>()])
            .gives(vector(&integers::<T>(&[0, 1, 2, 3, 4])))
    }
    fn floats_to_5<T: Float>() -> Case {
        case("arange")
            .with([int(5), dtype::<T>()])
            .gives(vector(&floats::<T>(&[0.0, 1.0, 2.0, 3.0, 4.0])))
    }
    let long: Vec<i32> = (0..100_000).collect();
    let others = vec![
        case("arange")
            .with([int(100_000), dtype::<i32>()])
            .gives(vector(&long)),
        case("arange")
            .with([int(0), dtype::<f32>()])
            .gives(vector::<f32>(&[])),
        case("arange")
            .with([int(1), dtype::<u64>()])
            .gives(vector(&[0u64])),
    ];
    [
        for_integers!(integers_to_5()),
        for_floats!(floats_to_5()),
        others,
    ]
    .concat()
}

fn eyes() -> Vec<Case> {
    fn square<T: Float>() -> Case {
        let ones = floats::<T>(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        case("eye")
            .with([int(3), int(3), dtype::<T>()])
            .gives(tensor(&ones, &[3, 3]))
    }
    fn wide<T: Integer>() -> Case {
        case("eye")
            .with([int(2), int(3), dtype::<T>()])
            .gives(tensor(&integers::<T>(&[1, 0, 0, 0, 1, 0]), &[2, 3]))
    }
    let tall = case("eye")
        .with([int(3), int(1), dtype::<u8>()])
        .gives(tensor(&[1u8, 0, 0], &[3, 1]));
    let empty = case("eye")
        .with([int(0), int(2), dtype::<f32>()])
        .gives(tensor::<f32>(&[], &[0, 2]));
    [
        for_floats!(square()),
        for_integers!(wide()),
        vec![tall, empty],
    ]
    .concat()
}
