//! Every row of the op table against values that MLX did not compute.

#[path = "../common/mod.rs"]
mod common;

/// Makes a test of groups of cases, and `cases`, which is all of them.
macro_rules! tests {
    ($($test:ident => $($group:expr),+;)*) => {
        $(#[test]
        fn $test() {
            crate::case::check([$($group()),+].concat());
        })*

        pub fn cases() -> Vec<crate::case::Case> {
            [$($($group()),+),*].concat()
        }
    };
}

mod arithmetic;
mod bits;
mod case;
mod cast;
mod comparison;
mod complex;
mod control;
mod convolution;
mod creation;
mod cumulative;
mod division;
mod factorization;
mod fast;
mod fatal;
mod fft;
mod functions;
mod indexing;
mod linalg;
mod narrow;
mod numbers;
mod quantization;
mod reduction;
mod refusal;
mod rounding;
mod shape;
mod slicing;
mod sort;
mod window;

use std::collections::HashSet;

use case::Case;

fn all_cases() -> Vec<Case> {
    [
        arithmetic::cases(),
        bits::cases(),
        cast::cases(),
        comparison::cases(),
        complex::cases(),
        control::cases(),
        convolution::cases(),
        creation::cases(),
        cumulative::cases(),
        division::cases(),
        factorization::cases(),
        fast::cases(),
        fft::cases(),
        functions::cases(),
        indexing::cases(),
        linalg::cases(),
        narrow::cases(),
        quantization::cases(),
        reduction::cases(),
        rounding::cases(),
        shape::cases(),
        slicing::cases(),
        sort::cases(),
        window::cases(),
    ]
    .concat()
}

#[test]
fn every_row_of_the_table_has_a_case() {
    let tested: HashSet<&str> = all_cases().iter().map(|case| case.op).collect();
    let untested: Vec<_> = mlx_core::ops::table()
        .map(|row| row.name)
        .filter(|name| !tested.contains(name))
        .collect();
    assert!(untested.is_empty(), "no case for {untested:?}");
}
