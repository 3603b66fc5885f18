//! Matrices in few bits, whose values follow from their bits by hand.

use half::f16;
use mlx_core::{Attribute, Dtype};

use crate::case::*;

tests! {
    integers_times_a_scale_plus_a_bias => affine_values;
    numbers_become_the_nearest_integers => affine_bits;
    floats_of_few_bits_times_a_scale => float_values, float_bits;
    products_with_packed_matrices => products, products_of_many_rows, halves;
    products_with_chosen_matrices => chosen, chosen_packed;
    products_of_nothing => empty;
    parts_that_do_not_fit => misfits;
}

fn mode(name: &str) -> Attribute {
    Attribute::Bytes(name.into())
}

/// The integers 0 to 15, twice.
fn nibbles() -> Tensor {
    let words = [0x7654_3210u32, 0xFEDC_BA98, 0x7654_3210, 0xFEDC_BA98];
    tensor(&words, &[1, 4])
}

/// Half of each less one.
fn numbers() -> Vec<f32> {
    (0..32).map(|i| (i % 16) as f32 / 2.0 - 1.0).collect()
}

fn column(value: f32) -> Tensor {
    tensor(&[value], &[1, 1])
}

fn four_bits<const N: usize>(more: [Attribute; N]) -> Vec<Attribute> {
    let format = [mode("affine"), int(32), int(4)];
    format.into_iter().chain(more).collect()
}

fn with(mut case: Case, attributes: Vec<Attribute>) -> Case {
    case.attributes = attributes;
    case
}

fn affine_values() -> Vec<Case> {
    let f16s: Vec<f16> = numbers().into_iter().map(f16::from_f32).collect();
    let values = |scale, bias, dtype| {
        let case = case("dequantize").on([nibbles(), scale, bias]);
        with(case, four_bits([Attribute::Dtype(dtype)]))
    };
    let halves = [0.5, -1.0].map(|number| tensor(&[f16::from_f32(number)], &[1, 1]));
    let [scale, bias] = halves;
    let seven: Vec<f32> = (0..32).map(|i| (i % 8) as f32 * 2.0).collect();
    let threes = case("dequantize")
        .on([tensor(&threes(), &[1, 3]), column(2.0), column(0.0)])
        .with([
            mode("affine"),
            int(32),
            int(3),
            Attribute::Dtype(Dtype::Float32),
        ]);
    vec![
        values(column(0.5), column(-1.0), Dtype::Float32).gives(tensor(&numbers(), &[1, 32])),
        values(scale, bias, Dtype::Float16).gives(tensor(&f16s, &[1, 32])),
        threes.gives(tensor(&seven, &[1, 32])),
    ]
}

/// The integers 0 to 7, four times, of 3 bits each, from the lowest bit on.
fn threes() -> [u32; 3] {
    let mut words = [0u32; 3];
    for place in 0..96 {
        let bit = ((place / 3) % 8) >> (place % 3) & 1;
        words[place / 32] |= (bit as u32) << (place % 32);
    }
    words
}

fn affine_bits() -> Vec<Case> {
    let fifteen: Vec<f32> = (0..32).map(|i| (i % 16) as f32).collect();
    let seven: Vec<f32> = (0..32).map(|i| -((i % 8) as f32)).collect();
    let down = [0x89AB_CDEFu32, 0x0123_4567, 0x89AB_CDEF, 0x0123_4567];
    let bits = |numbers: &[f32], bits, packed: &[u32], scale, bias| {
        case("quantize_affine")
            .on([tensor(numbers, &[1, 32])])
            .with([int(32), int(bits)])
            .gives_all([
                tensor(packed, &[1, packed.len() as i64]),
                column(scale),
                column(bias),
            ])
    };
    // The number of the largest magnitude is integer 0.
    let up: Vec<u32> = threes().iter().map(|word| !word).collect();
    vec![
        bits(&fifteen, 4, &down, -1.0, 15.0),
        bits(&seven, 3, &up, 1.0, -7.0),
    ]
}

fn float_values() -> Vec<Case> {
    let dequantize = |name, size, bits, packed: &[u32], scales: &[u8], values: &[f32]| {
        case("dequantize")
            .on([
                tensor(packed, &[1, packed.len() as i64]),
                tensor(scales, &[1, scales.len() as i64]),
            ])
            .with([
                mode(name),
                int(size),
                int(bits),
                Attribute::Dtype(Dtype::Float32),
            ])
            .gives(tensor(values, &[1, values.len() as i64]))
    };
    let padded = |values: &[f32], size: usize| {
        let mut values = values.to_vec();
        values.resize(size, 0.0);
        values
    };
    // E2M1 has 0.5 as code 1 and 6 as code 7; the sign is the highest bit.
    let doubled = padded(&[12.0, -6.0, 1.0], 32);
    let mut halved = padded(&[3.0, -1.5, 0.25], 32);
    halved[16] = 6.0;
    let eight = padded(&[2.0, -1.0, 448.0], 32);
    vec![
        dequantize("mxfp4", 32, 4, &[0x1D7, 0, 0, 0], &[128], &doubled),
        // E4M3 has 0.5 as 0x30 and 1.0 as 0x38.
        dequantize("nvfp4", 16, 4, &[0x1D7, 0, 0x7, 0], &[0x30, 0x38], &halved),
        dequantize(
            "mxfp8",
            32,
            8,
            &[0x7E_B8_40, 0, 0, 0, 0, 0, 0, 0],
            &[127],
            &eight,
        ),
    ]
}

fn float_bits() -> Vec<Case> {
    let mut numbers = vec![0.0f32; 32];
    numbers[..3].copy_from_slice(&[12.0, -6.0, 1.0]);
    let results = [
        tensor(&[0x1D7u32, 0, 0, 0], &[1, 4]),
        tensor(&[128u8], &[1, 1]),
    ];
    vec![case("quantize_float")
        .on([tensor(&numbers, &[1, 32])])
        .with([mode("mxfp4"), int(32), int(4)])
        .gives_all(results)]
}

/// Two rows of numbers, of which the second is twice the first.
fn packed() -> [Tensor; 3] {
    let words = [nibbles(), nibbles()].map(|words| words.bytes).concat();
    let packed = Tensor {
        dims: vec![2, 4],
        bytes: words,
        ..nibbles()
    };
    [
        packed,
        tensor(&[0.5f32, 1.0], &[2, 1]),
        tensor(&[-1.0f32, -2.0], &[2, 1]),
    ]
}

fn product(x: Tensor, transpose: bool) -> Case {
    let [words, scales, biases] = packed();
    let case = case("quantized_matmul").on([x, words, scales, biases]);
    with(case, four_bits([Attribute::Bool(transpose)]))
}

fn products() -> Vec<Case> {
    let mut first = vec![0.0f32; 32];
    first[3] = 2.0;
    let sum: f32 = numbers().iter().sum();
    vec![
        product(tensor(&first, &[1, 32]), true).gives(tensor(&[1.0f32, 2.0], &[1, 2])),
        product(tensor(&[1.0f32; 32], &[1, 32]), true).gives(tensor(&[sum, 2.0 * sum], &[1, 2])),
        product(tensor(&[3.0f32, -1.0], &[1, 2]), false).gives(tensor(&numbers(), &[1, 32])),
    ]
}

/// Each row is one of the identity, times its number.
fn products_of_many_rows() -> Vec<Case> {
    let mut x = vec![0.0f32; 9 * 32];
    (0..9).for_each(|row| x[row * 33] = row as f32);
    let y: Vec<f32> = (0..9)
        .flat_map(|row| [1.0, 2.0].map(|twice| row as f32 * twice * numbers()[row] + 0.0))
        .collect();
    let columns: Vec<f32> = (0..9)
        .flat_map(|row| {
            numbers()
                .into_iter()
                .map(move |number| number * row as f32 + 0.0)
        })
        .collect();
    let rows: Vec<f32> = (0..9).flat_map(|row| [row as f32, 0.0]).collect();
    vec![
        product(tensor(&x, &[9, 32]), true).gives(tensor(&y, &[9, 2])),
        product(tensor(&rows, &[9, 2]), false).gives(tensor(&columns, &[9, 32])),
    ]
}

/// Sums that a half would lose.
fn halves() -> Vec<Case> {
    let x = vec![f16::from_f32(1000.0); 32];
    let [words, ..] = packed();
    let [scales, biases] =
        [[0.5, 1.0], [-1.0, -2.0]].map(|n| tensor(&n.map(f16::from_f32), &[2, 1]));
    let y = [32000.0f32, 64000.0].map(|number| f16::from_f32(number * 2.75));
    let case = case("quantized_matmul").on([tensor(&x, &[1, 32]), words, scales, biases]);
    vec![with(case, four_bits([Attribute::Bool(true)])).gives(tensor(&y, &[1, 2]))]
}

fn chosen() -> Vec<Case> {
    let w = tensor(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2, 1]);
    let gather = |x: Tensor, indices: &[i32]| case("gather_mm").on([x, w.clone(), vector(indices)]);
    let x = tensor(&[1.0f32, 1.0, 10.0, 0.0], &[2, 1, 2]);
    let y = |values: &[f32]| tensor(values, &[values.len() as i64, 1, 1]);
    vec![
        gather(x.clone(), &[1, 0]).gives(y(&[7.0, 10.0])),
        // Outside, positions are moved to the edge.
        gather(x.clone(), &[9, -9]).gives(y(&[7.0, 10.0])),
        gather(tensor(&[1.0f32, 1.0], &[1, 1, 2]), &[0, 1, 0]).gives(y(&[3.0, 7.0, 3.0])),
        gather(tensor::<f32>(&[], &[0, 1, 2]), &[]).gives(y(&[])),
    ]
}

fn chosen_packed() -> Vec<Case> {
    let [words, scales, biases] = packed();
    let stacked = |part: Tensor, last| Tensor {
        dims: vec![2, 1, last],
        ..part
    };
    let gather = |x: Tensor, indices: &[i64], transpose| {
        let parts = [
            stacked(words.clone(), 4),
            stacked(scales.clone(), 1),
            stacked(biases.clone(), 1),
        ];
        let [words, scales, biases] = parts;
        let case = case("gather_qmm").on([x, vector(indices), words, scales, biases]);
        with(case, four_bits([Attribute::Bool(transpose)]))
    };
    let sum: f32 = numbers().iter().sum();
    let doubled: Vec<f32> = numbers().iter().map(|number| number * 2.0).collect();
    let ones = tensor(&[1.0f32; 32], &[1, 1, 32]);
    vec![
        gather(ones.clone(), &[1, 0], true).gives(tensor(&[2.0 * sum, sum], &[2, 1, 1])),
        gather(ones, &[5, -1], true).gives(tensor(&[2.0 * sum, sum], &[2, 1, 1])),
        gather(tensor(&[1.0f32], &[1, 1, 1]), &[1], false).gives(tensor(&doubled, &[1, 1, 32])),
    ]
}

/// MLX divides by the sizes.
fn empty() -> Vec<Case> {
    let none = |dims: &[i64]| tensor::<f32>(&[], dims);
    let words = tensor::<u32>(&[], &[0, 4]);
    let nothing = case("dequantize").on([words, none(&[0, 1]), none(&[0, 1])]);
    vec![
        product(none(&[0, 32]), true).gives(none(&[0, 2])),
        product(none(&[3, 0, 32]), true).gives(none(&[3, 0, 2])),
        product(none(&[0, 2]), false).gives(none(&[0, 32])),
        with(nothing, four_bits([Attribute::Dtype(Dtype::Float32)])).gives(none(&[0, 32])),
    ]
}

fn misfits() -> Vec<Case> {
    let dequantize = |words: Tensor, scales: Tensor, biases: Tensor| {
        let case = case("dequantize").on([words, scales, biases]);
        with(case, four_bits([Attribute::Dtype(Dtype::Float32)])).fails("are no matrix of 4 bits")
    };
    let two = || tensor(&[1.0f32, 1.0], &[1, 2]);
    let short = case("dequantize").on([nibbles(), column(1.0)]);
    vec![
        dequantize(nibbles(), two(), two()),
        dequantize(nibbles(), column(1.0), two()),
        dequantize(tensor(&[1i32; 4], &[1, 4]), column(1.0), column(1.0)),
        with(short, four_bits([Attribute::Dtype(Dtype::Float32)])).fails("takes 3 operands"),
        product(tensor(&[1.0f32; 31], &[1, 31]), true).refused(),
    ]
}
