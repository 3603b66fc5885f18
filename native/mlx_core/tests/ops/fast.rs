//! Functions of transformers.

use mlx_core::Attribute;

use crate::case::*;

tests! {
    norms_divide_by_the_root_mean_square => rms_norms;
}

fn rms_norms() -> Vec<Case> {
    let x = || tensor(&[3f32, 4.0, 0.0, 0.0, 1.0, 7.0], &[3, 2]);
    let norm = |operands: Vec<Tensor>, eps, y: Tensor| {
        let mut case = case("rms_norm").with([Attribute::Float(eps)]);
        case.operands = operands;
        case.gives(y).near(1e-6)
    };
    let plain = [0.848_528_1f32, 1.131_370_8, 0.0, 0.0, 0.2, 1.4];
    let weighted = [0.848_528_1f32, 2.262_741_7, 0.0, 0.0, 0.2, 2.8];
    let weight = || vector(&[1f32, 2.0]);
    vec![
        norm(vec![x()], 1e-30, tensor(&plain, &[3, 2])),
        norm(vec![x(), weight()], 1e-30, tensor(&weighted, &[3, 2])),
        norm(vec![vector(&[2f32, 2.0])], 12.0, vector(&[0.5f32, 0.5])),
        case("rms_norm")
            .on([x(), vector(&[1f32])])
            .with([Attribute::Float(0.0)])
            .refused(),
    ]
}
