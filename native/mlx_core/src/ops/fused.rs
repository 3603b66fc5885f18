//! The op that a fused part of a program becomes. Nobody else can name it.

use super::ops;
use crate::fuse::Fused;

ops! {
    /// What the part makes of the operands, run as MLX compiled it.
    fused[operands] { part: &Fused } |s| -> * => part.run(operands, s);
}
