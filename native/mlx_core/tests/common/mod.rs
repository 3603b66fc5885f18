//! What the tests share: blocking calls and arrays from numbers.
#![allow(dead_code)]

use std::sync::mpsc::channel;
use std::sync::Arc;

use mlx_core::{
    ops, Attribute, Device, Dtype, Error, HostView, Instruction, Payload, Program, Result, Slot,
    Stream,
};

pub fn stream() -> Stream {
    mlx_core::init();
    Stream::new(Device::Cpu).unwrap()
}

pub fn load(stream: &Stream, values: &[f32], dims: &[i64]) -> Arc<Slot> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    stream
        .load(Payload::new(bytes, dims, Dtype::Float32).unwrap())
        .unwrap()
}

pub fn instruction(name: &str, operands: &[usize], attributes: Vec<Attribute>) -> Instruction {
    Instruction {
        row: ops::row(name).unwrap(),
        operands: operands.into(),
        attributes,
    }
}

pub fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.into())
}

/// Queues one op on slots and returns the slot of its result.
pub fn op(
    stream: &Stream,
    name: &str,
    inputs: &[&Arc<Slot>],
    attributes: Vec<Attribute>,
) -> Arc<Slot> {
    let operands: Vec<usize> = (0..inputs.len()).collect();
    let instructions = vec![instruction(name, &operands, attributes)];
    let program = Program::new(inputs.len(), instructions, vec![inputs.len()]).unwrap();
    let inputs: Vec<Arc<Slot>> = inputs.iter().map(|&slot| slot.clone()).collect();
    stream.run(Arc::new(program), inputs).unwrap().remove(0)
}

pub fn read(slot: &Arc<Slot>) -> Result<Vec<u8>, Arc<Error>> {
    let (sender, receiver) = channel();
    slot.read(move |view: Result<HostView, Arc<Error>>| {
        sender.send(view.map(|view| view.bytes().to_vec())).unwrap()
    });
    receiver.recv().unwrap()
}

pub fn floats(slot: &Arc<Slot>) -> Vec<f32> {
    let bytes = read(slot).unwrap();
    bytes
        .chunks_exact(4)
        .map(|chunk| f32::from_ne_bytes(chunk.try_into().unwrap()))
        .collect()
}

pub fn synchronize(stream: &Stream) {
    let (sender, receiver) = channel();
    stream.synchronize(move |outcome: Result<(), Arc<Error>>| sender.send(outcome).unwrap());
    receiver.recv().unwrap().unwrap();
}
