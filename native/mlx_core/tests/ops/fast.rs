//! Functions of transformers.

use mlx_core::Attribute::{Bool, Float};

use crate::case::*;

tests! {
    norms_divide_by_the_root_mean_square => rms_norms;
    norms_of_layers_have_no_mean => layer_norms;
    pairs_turn_with_their_position => ropes;
    values_are_weighted_by_matching_keys => attentions;
    many_causal_queries_see_what_few_see => causal_attentions;
    queries_see_up_to_their_position => attentions_from;
    updates_are_moved_inside => updates;
    exponentials_sum_to_one => softmaxes;
    gates_open_with_their_sigmoid => gates;
    numbers_weigh_what_is_below_them => gelus;
    what_does_not_fit_is_refused => misfits;
}

/// A case of a row that takes any number of operands.
fn of(op: &'static str, operands: Vec<Tensor>) -> Case {
    let mut case = case(op);
    case.operands = operands;
    case
}

fn rms_norms() -> Vec<Case> {
    let x = || tensor(&[3f32, 4.0, 0.0, 0.0, 1.0, 7.0], &[3, 2]);
    let norm = |operands, eps, y| {
        of("rms_norm", operands)
            .with([Float(eps)])
            .gives(y)
            .near(1e-6)
    };
    let plain = [0.848_528_1f32, 1.131_370_8, 0.0, 0.0, 0.2, 1.4];
    let weighted = [0.848_528_1f32, 2.262_741_7, 0.0, 0.0, 0.2, 2.8];
    let weight = || vector(&[1f32, 2.0]);
    vec![
        norm(vec![x()], 1e-30, tensor(&plain, &[3, 2])),
        norm(vec![x(), weight()], 1e-30, tensor(&weighted, &[3, 2])),
        norm(vec![vector(&[2f32, 2.0])], 12.0, vector(&[0.5f32, 0.5])),
        norm(
            vec![tensor::<f32>(&[], &[0, 2])],
            1.0,
            tensor::<f32>(&[], &[0, 2]),
        ),
    ]
}

fn layer_norms() -> Vec<Case> {
    let norm = |rest: Vec<Tensor>, [weight, bias]: [bool; 2], y: [f32; 4]| {
        let x = tensor(&[1f32, 3.0, 2.0, 2.0], &[2, 2]);
        of("layer_norm", [vec![x], rest].concat())
            .with([Float(1e-30), Bool(weight), Bool(bias)])
            .gives(tensor(&y, &[2, 2]))
            .near(1e-6)
    };
    let (weight, bias) = (|| vector(&[2f32, 3.0]), || vector(&[10f32, 20.0]));
    let wide =
        of("layer_norm", vec![vector(&[1f32, 3.0])]).with([Float(3.0), Bool(false), Bool(false)]);
    vec![
        norm(vec![], [false, false], [-1.0, 1.0, 0.0, 0.0]),
        norm(vec![weight()], [true, false], [-2.0, 3.0, 0.0, 0.0]),
        norm(vec![bias()], [false, true], [9.0, 21.0, 10.0, 20.0]),
        norm(
            vec![weight(), bias()],
            [true, true],
            [8.0, 23.0, 10.0, 20.0],
        ),
        wide.gives(vector(&[-0.5f32, 0.5])).near(1e-6),
    ]
}

/// Two vectors of 1, 2, 3, 4 for each of two batches, turned by angles for two pairs.
fn turned(traditional: bool, angles: [[f64; 2]; 4]) -> Tensor {
    let pairs = if traditional {
        [(0, 1), (2, 3)]
    } else {
        [(0, 2), (1, 3)]
    };
    let mut y = vec![];
    for angles in angles {
        let (x, mut turned) = ([1.0, 2.0, 3.0, 4.0], [0f64; 4]);
        for ((i, j), angle) in pairs.into_iter().zip(angles) {
            turned[i] = x[i] * angle.cos() - x[j] * angle.sin();
            turned[j] = x[i] * angle.sin() + x[j] * angle.cos();
        }
        y.extend(turned.map(|number| number as f32));
    }
    tensor(&y, &[2, 1, 2, 4])
}

fn ropes() -> Vec<Case> {
    let x = || tensor(&[1f32, 2.0, 3.0, 4.0].repeat(4), &[2, 1, 2, 4]);
    let rope = |position, periods: Option<Tensor>, traditional, scale, y| {
        let operands = [x(), position].into_iter().chain(periods).collect();
        of("rope", operands)
            .with([int(4), Bool(traditional), Float(100.0), Float(scale)])
            .gives(y)
            .near(1e-5)
    };
    let at = |positions: [f64; 4], rates: [f64; 2]| positions.map(|p| rates.map(|rate| p * rate));
    let own = || Some(vector(&[2f32, 4.0]));
    let mut cases = vec![];
    for traditional in [false, true] {
        let turned = |positions, rates| turned(traditional, at(positions, rates));
        let y = turned([3.0, 4.0, 3.0, 4.0], [1.0, 0.1]);
        cases.push(rope(scalar(3i32), None, traditional, 1.0, y));
        let y = turned([0.0, 0.5, 3.5, 4.0], [1.0, 0.1]);
        cases.push(rope(vector(&[0i32, 7]), None, traditional, 0.5, y));
        let y = turned([0.0, 1.0, 7.0, 8.0], [0.5, 0.25]);
        cases.push(rope(vector(&[0i32, 7]), own(), traditional, 1.0, y));
    }
    let some = of(
        "rope",
        vec![tensor(&[1f32, 0.0, 5.0], &[1, 1, 1, 3]), scalar(2i32)],
    )
    .with([int(2), Bool(false), Float(1e4), Float(1.0)])
    .gives(tensor(&[2f32.cos(), 2f32.sin(), 5.0], &[1, 1, 1, 3]))
    .near(1e-6);
    cases.push(some);
    cases
}

fn attentions() -> Vec<Case> {
    let four = |numbers: &[f32]| tensor(numbers, &[1, 1, numbers.len() as i64, 1]);
    let attend =
        |q: [f32; 2], rest: Vec<Tensor>, [causal, mask, sinks]: [bool; 3], scale, y: [f32; 2]| {
            let operands = vec![four(&q), four(&[1.0, 0.0]), four(&[1.0, 3.0])];
            of("attention", [operands, rest].concat())
                .with([Float(scale), Bool(causal), Bool(mask), Bool(sinks)])
                .gives(four(&y))
                .near(1e-6)
        };
    let (none, log) = ([0.0, 0.0], 3f32.ln());
    let mask = |numbers: [bool; 4]| vec![tensor(&numbers, &[1, 1, 2, 2])];
    let added = |numbers: [f32; 4]| vec![tensor(&numbers, &[2, 2])];
    let heads = |count, numbers: &[f32]| tensor(numbers, &[1, count, 1, 1]);
    let grouped = vec![
        heads(4, &[1.0; 4]),
        heads(2, &[1.0; 2]),
        heads(2, &[5.0, 7.0]),
    ];
    vec![
        attend(none, vec![], [false; 3], 1.0, [2.0, 2.0]),
        attend([log, 0.0], vec![], [false; 3], 1.0, [1.5, 2.0]),
        attend([log, 0.0], vec![], [false; 3], 2.0, [1.2, 2.0]),
        attend(none, vec![], [true, false, false], 1.0, [1.0, 2.0]),
        attend(
            none,
            mask([false, true, true, true]),
            [false, true, false],
            1.0,
            [3.0, 2.0],
        ),
        attend(
            none,
            mask([false, false, true, false]),
            [false, true, false],
            1.0,
            [2.0, 1.0],
        ),
        attend(
            none,
            added([0.0, log, 0.0, 0.0]),
            [false, true, false],
            1.0,
            [2.5, 2.0],
        ),
        attend(
            none,
            vec![vector(&[2f32.ln()])],
            [false, false, true],
            1.0,
            [1.0, 1.0],
        ),
        of("attention", grouped)
            .with([Float(1.0), Bool(false), Bool(false), Bool(false)])
            .gives(heads(4, &[5.0, 5.0, 7.0, 7.0])),
    ]
}

/// Queries that match all keys alike, so that each gets the mean of the values that it sees.
fn causal_attentions() -> Vec<Case> {
    let attend = |queries: usize, keys: usize, sinks: Vec<Tensor>| {
        let (heads, none) = (2, !sinks.is_empty());
        let of_size = |count: usize| [1, heads as i64, count as i64, 1];
        let values: Vec<f32> = (0..heads * keys).map(|i| (i % 11) as f32).collect();
        let mean = |head: usize, query: usize| {
            let seen = keys - queries + query + 1;
            let sum: f32 = values[head * keys..][..seen].iter().sum();
            sum / (seen + usize::from(none)) as f32
        };
        let means: Vec<f32> = (0..heads)
            .flat_map(|head| (0..queries).map(move |query| (head, query)))
            .map(|(head, query)| mean(head, query))
            .collect();
        let zeros = |count: usize| tensor(&vec![0f32; heads * count], &of_size(count));
        let operands = vec![zeros(queries), zeros(keys), tensor(&values, &of_size(keys))];
        of("attention", [operands, sinks].concat())
            .with([Float(1.0), Bool(true), Bool(false), Bool(none)])
            .gives(tensor(&means, &of_size(queries)))
            .near(1e-5)
    };
    vec![
        attend(64, 64, vec![]),
        attend(65, 65, vec![]),
        attend(150, 170, vec![]),
        attend(130, 140, vec![vector(&[0f32, 0.0])]),
    ]
}

fn attentions_from() -> Vec<Case> {
    let four = |numbers: &[f32]| tensor(numbers, &[1, 1, numbers.len() as i64, 1]);
    let attend = |queries: usize, position: Tensor, y: &[f32]| {
        let (k, v) = (four(&[0.0; 4]), four(&[1.0, 3.0, 8.0, 12.0]));
        of(
            "attention_from",
            vec![four(&vec![1.0; queries]), k, v, position],
        )
        .with([Float(1.0), Bool(false)])
        .gives(four(y))
        .near(1e-6)
    };
    let sinks = {
        let operands = vec![
            four(&[1.0]),
            four(&[0.0; 4]),
            four(&[1.0, 3.0, 8.0, 12.0]),
            scalar(1i32),
            vector(&[2f32.ln()]),
        ];
        of("attention_from", operands)
            .with([Float(1.0), Bool(true)])
            .gives(four(&[1.0]))
            .near(1e-6)
    };
    vec![
        attend(1, scalar(0i32), &[1.0]),
        attend(1, scalar(1i32), &[2.0]),
        attend(1, scalar(3i64), &[6.0]),
        attend(1, scalar(9i32), &[6.0]),
        attend(1, scalar(-5i32), &[1.0]),
        attend(2, scalar(1i32), &[2.0, 4.0]),
        attend(2, scalar(3i32), &[6.0, 6.0]),
        attend(2, scalar(-1i32), &[1.0, 1.0]),
        sinks,
    ]
}

fn updates() -> Vec<Case> {
    let update = |position: Tensor, y: [i32; 6]| {
        case("update_cache")
            .on([
                tensor(&[1i32, 2, 3, 4, 5, 6], &[2, 3]),
                tensor(&[7i32, 8, 9, 10], &[2, 2]),
                position,
            ])
            .with([int(1)])
            .gives(tensor(&y, &[2, 3]))
    };
    vec![
        update(scalar(0i32), [7, 8, 3, 9, 10, 6]),
        update(scalar(1i64), [1, 7, 8, 4, 9, 10]),
        update(scalar(5i32), [1, 7, 8, 4, 9, 10]),
        update(scalar(-5i32), [7, 8, 3, 9, 10, 6]),
    ]
}

fn softmaxes() -> Vec<Case> {
    let softmax = |axis, precise, y: [f32; 4]| {
        case("softmax")
            .on([tensor(&[0f32, 3f32.ln(), 1000.0, 1000.0], &[2, 2])])
            .with([int(axis), Bool(precise)])
            .gives(tensor(&y, &[2, 2]))
            .near(1e-6)
    };
    vec![
        softmax(1, true, [0.25, 0.75, 0.5, 0.5]),
        softmax(1, false, [0.25, 0.75, 0.5, 0.5]),
        softmax(0, true, [0.0, 0.0, 1.0, 1.0]),
        case("softmax")
            .on([tensor::<f32>(&[], &[2, 0])])
            .with([int(1), Bool(true)])
            .gives(tensor::<f32>(&[], &[2, 0])),
    ]
}

fn gates() -> Vec<Case> {
    let y = [0f32, 1.462_117_2, -0.806_823_6];
    vec![case("swiglu")
        .on([vector(&[0f32, 1.0, -1.0]), vector(&[5f32, 2.0, 3.0])])
        .gives(vector(&y))
        .near(1e-6)]
}

/// Where a composition of `1 + erf` has lost all digits, too.
fn gelus() -> Vec<Case> {
    let x = || vector(&[0f32, 1.0, -1.0, 3.0]);
    let of = |row, y: [f32; 4]| case(row).on([x()]).gives(vector(&y)).near(1e-7);
    let far = |row, y: f32| case(row).on([scalar(-10f32)]).gives(scalar(y)).within(1e-6);
    vec![
        of("gelu", [0.0, 0.841_344_8, -0.158_655_25, 2.995_950_3]),
        of("gelu_tanh", [0.0, 0.841_192, -0.158_808, 2.996_362_6]),
        of(
            "gelu_sigmoid",
            [0.0, 0.845_795_8, -0.154_204_23, 2.981_928_7],
        ),
        far("gelu", -7.619_853e-23),
        far("gelu_sigmoid", -4.057_961_3e-7),
        case("gelu")
            .on([tensor::<f32>(&[], &[2, 0])])
            .gives(tensor::<f32>(&[], &[2, 0])),
    ]
}

fn misfits() -> Vec<Case> {
    let four =
        |shape: [i64; 4]| tensor(&vec![1f32; shape.iter().product::<i64>() as usize], &shape);
    let attend = |k, v| {
        of("attention", vec![four([1, 2, 3, 4]), four(k), four(v)])
            .with([Float(1.0), Bool(false), Bool(false), Bool(false)])
            .refused()
    };
    let rope = |operands, dims| {
        of("rope", operands)
            .with([int(dims), Bool(false), Float(1e4), Float(1.0)])
            .refused()
    };
    let norm = |operands| of("rms_norm", operands).with([Float(0.0)]).refused();
    vec![
        norm(vec![vector(&[1f32, 2.0]), vector(&[1f32; 3])]),
        norm(vec![]),
        norm(vec![scalar(1f32)]),
        of("layer_norm", vec![vector(&[1f32])])
            .with([Float(0.0), Bool(true), Bool(false)])
            .refused(),
        attend([1, 2, 3, 5], [1, 2, 3, 5]),
        attend([1, 3, 3, 4], [1, 3, 3, 4]),
        attend([1, 2, 3, 4], [1, 2, 4, 4]),
        rope(vec![four([1, 1, 1, 4]), scalar(0i32)], 3),
        rope(vec![four([1, 1, 1, 4]), scalar(0i32)], 6),
        rope(vec![four([1, 1, 1, 4]), vector(&[0i32, 1])], 4),
        rope(vec![vector(&[1f32; 4]), scalar(0i32)], 4),
        case("softmax")
            .on([vector(&[1f32])])
            .with([int(1), Bool(true)])
            .refused(),
    ]
}
