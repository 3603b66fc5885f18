//! Instructions that no op would take.

use std::collections::HashSet;

use mlx_core::{ops, Attribute, Dtype, Error, ErrorKind, Instruction, Program};

use crate::case::Case;
use crate::common;

/// One case of each op, for valid attributes to start from.
fn one_of_each() -> Vec<Case> {
    let mut seen = HashSet::new();
    let mut cases = crate::all_cases();
    cases.retain(|case| seen.insert(case.op));
    cases
}

fn program(op: &str, operands: usize, attributes: usize) -> Result<Program, Error> {
    let instruction = Instruction {
        row: ops::row(op)?,
        operands: (0..operands).collect(),
        attributes: vec![Attribute::Int(0); attributes],
    };
    // Without its programs, an op that has as many results as one has none.
    let results = instruction.results().min(1);
    let outputs: Vec<_> = (operands..operands + results).collect();
    Program::new(operands, vec![instruction], outputs)
}

#[test]
fn a_wrong_number_of_operands_refused() {
    for row in ops::table() {
        let Some(count) = row.operands else {
            program(row.name, 5, row.attributes.len()).unwrap();
            continue;
        };
        for given in [count + 1, count.wrapping_sub(1)] {
            if given == usize::MAX {
                continue;
            }
            let error = program(row.name, given, row.attributes.len()).unwrap_err();
            let message = format!("{} takes {count} operands, {given} were given", row.name);
            assert_eq!(error.to_string(), message);
            assert!(matches!(error, Error::OperandCount { .. }));
        }
    }
}

#[test]
fn a_wrong_number_of_attributes_refused() {
    for row in ops::table() {
        let (operands, count) = (row.operands.unwrap_or(2), row.attributes.len());
        program(row.name, operands, count).unwrap();
        for given in [count + 1, count.saturating_sub(1)] {
            if given == count {
                continue;
            }
            let error = program(row.name, operands, given).unwrap_err();
            let message = format!("{} takes {count} attributes, {given} were given", row.name);
            assert_eq!(error.to_string(), message);
            assert!(matches!(error, Error::AttributeCount { .. }));
        }
    }
}

/// An attribute of another kind than the one given.
fn another_kind(attribute: &Attribute) -> Attribute {
    match attribute {
        Attribute::Bool(_) => Attribute::Int(1),
        _ => Attribute::Bool(true),
    }
}

#[test]
fn attributes_of_a_wrong_kind_are_refused() {
    let stream = common::stream();
    for case in one_of_each() {
        for index in 0..case.attributes.len() {
            let mut attributes = case.attributes.clone();
            attributes[index] = another_kind(&attributes[index]);
            let row = ops::row(case.op).unwrap();
            // There is no result to read the refusal from.
            if row.results.is_none() && !attributes.iter().any(|a| a.program().is_some()) {
                continue;
            }
            let slot = case.run_with(&stream, attributes);
            let error = common::read(&slot).unwrap_err();
            let Error::InOp { op, source, .. } = &*error else {
                panic!("{case}: {error}");
            };
            let Error::Attribute {
                op: named, name, ..
            } = **source
            else {
                panic!("{case}: {error}");
            };
            let expected = ops::row(case.op).unwrap().attributes[index];
            assert_eq!((*op, named, name), (case.op, case.op, expected));
            assert_eq!(error.kind(), ErrorKind::Native);
        }
    }
}

#[test]
fn wrong_attributes_are_named_with_what_is_expected() {
    let wide = 1i64 << 31;
    let axes = "axes is missing or is not a list of 32-bit integers";
    let axis = "axis is missing or is not a 32-bit integer";
    let size = "size is missing or is not an integer";
    let dtype = "dtype is missing or is not an element type";
    let value = "value is missing or is not bytes";
    let cases = one_of_each();
    let refuses = |op: &str, index: usize, wrong: Attribute, message: &str| {
        let case = cases.iter().find(|case| case.op == op).unwrap();
        let mut attributes = case.attributes.clone();
        attributes[index] = wrong;
        let slot = case.run_with(&common::stream(), attributes);
        let error = common::read(&slot).unwrap_err().to_string();
        let message = format!("): {op}: attribute {message}");
        assert!(error.ends_with(&message), "{error}");
    };
    refuses("sum", 0, Attribute::Int(0), axes);
    refuses("sum", 0, common::ints(&[wide]), axes);
    refuses("argmax", 0, Attribute::Float(0.0), axis);
    refuses("argmax", 0, Attribute::Int(wide), axis);
    refuses("arange", 0, Attribute::Dtype(Dtype::Int32), size);
    refuses("cast", 0, Attribute::Int(5), dtype);
    refuses("full", 2, common::ints(&[]), dtype);
    refuses("full", 0, Attribute::Float(1.0), value);
}

#[test]
fn names_that_are_no_rows_are_refused() {
    for name in ["", "Add", "add ", "mlx_add"] {
        let error = program(name, 2, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
