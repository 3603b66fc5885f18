use super::*;
use crate::simd::level::entries;

const BATCHES: usize = 2;

#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    groups: usize,
    queries: usize,
    keys: usize,
    size: usize,
    width: usize,
}

fn numbers(count: usize, from: f32) -> Vec<f32> {
    (0..count)
        .map(|at| (at as f32 * 0.7 + from).sin())
        .collect()
}

/// Arrays lie position by position, each with all heads.
fn place([batch, head, position]: [usize; 3], [heads, positions, size]: [usize; 3]) -> usize {
    ((batch * positions + position) * heads + head) * size
}

fn steps([heads, positions, size]: [usize; 3]) -> [isize; 3] {
    [positions * heads * size, size, heads * size].map(|step| step as isize)
}

/// One number of what a query gets.
fn expected(
    of: Sizes,
    [q, k, v, mask]: [&[f32]; 4],
    call: &Call,
    [batch, head, query, column]: [usize; 4],
) -> f64 {
    let group = head / (of.heads / of.groups);
    let at = |key| [batch, group, key];
    let of_keys = [of.groups, of.keys, of.size];
    let seen = of.keys
        - if call.causal {
            of.queries - 1 - query
        } else {
            0
        };
    let weight = |key: usize| -> f64 {
        let q = &q[place([batch, head, query], [of.heads, of.queries, of.size])..];
        let k = &k[place(at(key), of_keys)..];
        let dot: f64 = (0..of.size)
            .map(|i| f64::from(q[i]) * f64::from(k[i]))
            .sum();
        let [of_batch, of_query] = call.mask_steps;
        let added = mask.get(batch * of_batch + query * of_query + key);
        (dot * call.scale + added.map_or(0.0, |&x| f64::from(x))).exp()
    };
    let total: f64 = (0..seen).map(weight).sum();
    let value = |key: usize| v[place(at(key), [of.groups, of.keys, of.width]) + column];
    (0..seen)
        .map(|key| weight(key) * f64::from(value(key)))
        .sum::<f64>()
        / total
}

fn check(of: Sizes, causal: bool, mask_rows: Option<[usize; 2]>) {
    let q = numbers(BATCHES * of.heads * of.queries * of.size, 0.0);
    let k = numbers(BATCHES * of.groups * of.keys * of.size, 1.0);
    let v = numbers(BATCHES * of.groups * of.keys * of.width, 2.0);
    let mut mask = numbers(BATCHES * of.queries * of.keys, 3.0);
    // Hides one key of several.
    if of.keys > 1 {
        mask[1] = f32::MIN / 2.0;
    }
    let mask = if mask_rows.is_some() { &mask[..] } else { &[] };
    let pointer = if mask.is_empty() {
        null()
    } else {
        mask.as_ptr().cast()
    };
    // What is not written stays NaN, which equals nothing.
    let mut y = vec![f32::NAN; BATCHES * of.queries * of.heads * of.width];
    let call = Call {
        inputs: [
            q.as_ptr().cast(),
            k.as_ptr().cast(),
            v.as_ptr().cast(),
            pointer,
        ],
        output: y.as_mut_ptr().cast(),
        batches: BATCHES,
        heads: of.heads,
        groups: of.groups,
        queries: of.queries,
        keys: of.keys,
        size: of.size,
        width: of.width,
        steps: [
            steps([of.heads, of.queries, of.size]),
            steps([of.groups, of.keys, of.size]),
            steps([of.groups, of.keys, of.width]),
        ],
        mask_steps: mask_rows.unwrap_or([0, 0]).map(|rows| rows * of.keys),
        scale: 0.5,
        causal,
    };
    for entry in entries::<Attention, f32>().into_iter().flatten() {
        y.fill(f32::NAN);
        // Safety: the vectors have the sizes that the call names.
        unsafe { entry(&call) };
        for batch in 0..BATCHES {
            for head in 0..of.heads {
                for query in 0..of.queries {
                    let at = place([batch, head, query], [of.heads, of.queries, of.width]);
                    for column in [0, of.width - 1] {
                        let place = [batch, head, query, column];
                        let expected = expected(of, [&q, &k, &v, mask], &call, place);
                        let got = f64::from(y[at + column]);
                        assert!((got - expected).abs() <= 1e-6, "{got} {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn sizes_masks_and_causes_at_each_level() {
    for (queries, keys) in [(1, 1), (5, 16), (6, 17), (7, 7), (13, 50)] {
        for (heads, groups) in [(3, 3), (4, 2)] {
            for (size, width) in [(3, 16), (32, 32), (5, 48)] {
                let of = Sizes {
                    heads,
                    groups,
                    queries,
                    keys,
                    size,
                    width,
                };
                check(of, false, None);
                check(of, true, None);
                for mask_rows in [[0, 0], [1, 0], [0, 1], [queries, 1]] {
                    check(of, false, Some(mask_rows));
                }
            }
        }
    }
}
