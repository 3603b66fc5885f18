//! Instructions that MLX itself ends the process for, each in a process of its own.

use std::process::Command;

use mlx_core::Attribute;

use crate::case::*;
use crate::slicing::grid;

const CHILD: &str = "MLX_CORE_FATAL_CHILD";

/// Either refused or, where there is nothing wrong with them, answered.
fn suspects() -> Vec<Case> {
    let none = || tensor::<f32>(&[], &[2, 0]);
    let run = |op| {
        case(op)
            .on([none()])
            .with([int(1), Attribute::Bool(false)])
            .gives(none())
    };
    let step = |strides: &[i64]| {
        case("slice")
            .on([grid()])
            .with([ints(&[0, 0]), ints(&[3, 4]), ints(strides)])
            .refused()
    };
    vec![
        step(&[0, 1]),
        step(&[0, 0]),
        run("cumulative_sum"),
        run("cumulative_product"),
        run("cumulative_max"),
        run("cumulative_min"),
        run("sort"),
        case("put_slice_dynamic")
            .on([grid(), tensor(&[1], &[1, 1, 1]), vector(&[0i64])])
            .with([ints(&[0])])
            .refused(),
    ]
}

/// An update longer than one element must not reach over the edge.
fn windows() -> Vec<Case> {
    let at = |op, position: i64, update: &[i32], y: [i32; 4]| {
        let update = tensor(update, &[1, update.len() as i64]);
        case(op)
            .on([vector(&[0; 4]), tensor(&[position], &[1, 1]), update])
            .with([ints(&[0])])
            .gives(vector(&y))
    };
    vec![
        at("indexed_add", 0, &[1, 2], [1, 2, 0, 0]),
        at("indexed_add", 3, &[1, 2], [0, 0, 1, 2]),
        at("indexed_put", 9, &[1, 2, 3], [0, 1, 2, 3]),
    ]
}

/// Runs the suspect that the environment names.
#[test]
fn child() {
    if let Some(index) = std::env::var_os(CHILD) {
        let index: usize = index.to_str().unwrap().parse().unwrap();
        check(vec![[suspects(), windows()].concat().swap_remove(index)]);
    }
}

#[test]
fn no_instruction_ends_the_process() {
    let mut wrong = Vec::new();
    for (index, case) in [suspects(), windows()].concat().iter().enumerate() {
        let outcome = Command::new(std::env::current_exe().unwrap())
            .args(["fatal::child", "--exact"])
            .env(CHILD, index.to_string())
            .output()
            .unwrap();
        if !outcome.status.success() {
            let said = String::from_utf8_lossy(&outcome.stdout);
            let told = said.lines().find(|line| line.contains(" operands: "));
            let status = outcome.status.to_string();
            wrong.push(told.map_or(format!("{case}: {status}"), str::to_owned));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
