//! Halting with work in flight ends the process cleanly.

mod common;

use std::process::Command;

use common::*;
use mlx_core::Attribute;

const CHILD: &str = "MLX_CORE_HALT_CHILD";

/// Runs in a process of its own: queues work and leaves without waiting.
#[test]
fn halting_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let stream = stream();
    let side = 600i64;
    let mut matrix = op(
        &stream,
        "full",
        &[],
        vec![
            Attribute::Bytes(0.001f32.to_ne_bytes().to_vec()),
            ints(&[side, side]),
            Attribute::Dtype(mlx_core::Dtype::Float32),
        ],
    );
    for _ in 0..20 {
        matrix = op(&stream, "matmul", &[&matrix, &matrix], vec![]);
        matrix.async_eval();
    }
    std::process::exit(7);
}

#[test]
fn the_exit_status_survives() {
    for _ in 0..5 {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["halting_child", "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(7), "{status}");
    }
}
