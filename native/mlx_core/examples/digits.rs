//! Learns to read handwritten digits with the engine alone.
//!
//! One step of gradient descent is one program. It is checked once, queued again
//! for every step without waiting, and the weights never leave the worker.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Instant;

use flate2::bufread::GzDecoder;
use mlx_core::{
    ops, Attribute, Device, Dtype, HostView, Instruction, Payload, Program, Slot, Stream,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/digits.csv.gz");
const PIXELS: usize = 64;
const CLASSES: usize = 10;
/// Pixels and a constant one, whose weights are the biases.
const FEATURES: usize = PIXELS + 1;
const STEPS: usize = 500;
const REPORT_EVERY: usize = 100;
const LEARNING_RATE: f32 = 1.0;
const LOWEST_ACCURACY: f32 = 0.9;

fn main() -> ExitCode {
    match learn() {
        Ok(accuracy) if accuracy >= LOWEST_ACCURACY => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("error: that is too few; something is wrong");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Trains on four fifths of the images and returns the share of the others read right.
fn learn() -> Result<f32> {
    mlx_core::init();
    let mut device = Device::Cpu;
    if Device::Gpu.is_available() {
        device = Device::Gpu;
    }
    let stream = Stream::of(device)?;
    let (training, held_out) = read_digits()?;
    let (learned, tested) = (training.count(), held_out.count());
    println!("Handwritten digits on the {device}: learning from {learned} images");

    let began = Instant::now();
    let weights = train(stream, &training)?;
    let seconds = began.elapsed().as_secs_f32();
    let accuracy = measure(stream, &held_out, weights)?;
    let percent = 100.0 * accuracy;
    println!("{STEPS} steps took {seconds:.2} s");
    println!("{percent:.1} % of {tested} images it has never seen are read correctly");
    Ok(accuracy)
}

/// Images and their digits, row by row.
#[derive(Default)]
struct Digits {
    images: Vec<f32>,
    labels: Vec<u32>,
}

impl Digits {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn push(&mut self, line: &str) -> Result<()> {
        let numbers = line
            .split(',')
            .map(str::parse)
            .collect::<std::result::Result<Vec<u8>, _>>()?;
        let Some((&label, pixels)) = numbers.split_last() else {
            return Err("the data has an empty line".into());
        };
        if pixels.len() != PIXELS || usize::from(label) >= CLASSES {
            return Err(format!("not an image: {line}").into());
        }
        self.images
            .extend(pixels.iter().map(|&grey| f32::from(grey) / 16.0));
        self.images.push(1.0);
        self.labels.push(label.into());
        Ok(())
    }

    fn images(&self, stream: &Stream) -> Result<Arc<Slot>> {
        load(stream, &self.images, [self.count(), FEATURES])
    }

    /// A row for each image, with a one at its digit.
    fn one_hot(&self, stream: &Stream) -> Result<Arc<Slot>> {
        let mut rows = vec![0.0; self.count() * CLASSES];
        for (row, &label) in rows.chunks_exact_mut(CLASSES).zip(&self.labels) {
            row[label as usize] = 1.0;
        }
        load(stream, &rows, [self.count(), CLASSES])
    }
}

/// Every fifth image is held out.
fn read_digits() -> Result<(Digits, Digits)> {
    let file = std::fs::File::open(DATA).map_err(|error| format!("{DATA}: {error}"))?;
    let lines = BufReader::new(GzDecoder::new(BufReader::new(file))).lines();
    let (mut training, mut held_out) = (Digits::default(), Digits::default());
    for (number, line) in lines.enumerate() {
        let part = if number % 5 == 4 {
            &mut held_out
        } else {
            &mut training
        };
        part.push(&line?)?;
    }
    Ok((training, held_out))
}

fn train(stream: &Stream, digits: &Digits) -> Result<Arc<Slot>> {
    let images = digits.images(stream)?;
    let labels = digits.one_hot(stream)?;
    let step = Arc::new(step(digits.count())?);
    let mut weights = load(stream, &[0.0; FEATURES * CLASSES], [FEATURES, CLASSES])?;
    for number in 1..=STEPS {
        let inputs = vec![images.clone(), labels.clone(), weights];
        let [next, loss] = run(stream, &step, inputs)?;
        weights = next;
        if number % REPORT_EVERY == 0 {
            println!("  step {number:3}   loss {:.4}", read(&loss)?);
        }
    }
    Ok(weights)
}

/// Softmax regression: `W - rate * transpose(X) (softmax(X W) - Y) / n`, and the loss
/// before it.
fn step(count: usize) -> Result<Program> {
    let mut program = Builder::new(3);
    let (images, labels, weights) = (0, 1, 2);
    let columns = || [axes(&[1]), Attribute::Bool(true)];
    let everything = [axes(&[0, 1]), Attribute::Bool(true)];

    let scores = program.op("matmul", &[images, weights], [])?;
    let highest = program.op("reduce_max", &[scores], columns())?;
    let shifted = program.op("subtract", &[scores, highest], [])?;
    let powers = program.op("exp", &[shifted], [])?;
    let total = program.op("sum", &[powers], columns())?;
    let guesses = program.op("divide", &[powers, total], [])?;

    let errors = program.op("subtract", &[guesses, labels], [])?;
    let turned = program.op("transpose", &[images], [axes(&[1, 0])])?;
    let slopes = program.op("matmul", &[turned, errors], [])?;
    let rate = program.number(LEARNING_RATE / count as f32)?;
    let change = program.op("multiply", &[slopes, rate], [])?;
    let next = program.op("subtract", &[weights, change], [])?;

    let log_total = program.op("log", &[total], [])?;
    let log_guesses = program.op("subtract", &[shifted, log_total], [])?;
    let of_labels = program.op("multiply", &[labels, log_guesses], [])?;
    let sum = program.op("sum", &[of_labels], everything)?;
    let scale = program.number(-1.0 / count as f32)?;
    let loss = program.op("multiply", &[sum, scale], [])?;
    program.build(vec![next, loss])
}

fn axes(axes: &[i64]) -> Attribute {
    Attribute::Ints(axes.into())
}

/// The share of images whose highest score is at their digit.
fn measure(stream: &Stream, digits: &Digits, weights: Arc<Slot>) -> Result<f32> {
    let mut program = Builder::new(3);
    let (images, labels, weights_register) = (0, 1, 2);
    let scores = program.op("matmul", &[images, weights_register], [])?;
    let first = || [Attribute::Int(1), Attribute::Bool(false)];
    let read_as = program.op("argmax", &[scores], first())?;
    let digit = program.op("argmax", &[labels], first())?;
    let correct = program.op("equal", &[read_as, digit], [])?;
    let ones = program.op("cast", &[correct], [Attribute::Dtype(Dtype::Float32)])?;
    let sum = program.op("sum", &[ones], [axes(&[0, 1]), Attribute::Bool(true)])?;
    let program = Arc::new(program.build(vec![sum])?);

    let inputs = vec![digits.images(stream)?, digits.one_hot(stream)?, weights];
    let [correct] = run(stream, &program, inputs)?;
    Ok(read(&correct)? / digits.count() as f32)
}

/// Instructions so far, and the number of the next free register.
struct Builder {
    inputs: usize,
    registers: usize,
    instructions: Vec<Instruction>,
}

impl Builder {
    fn new(inputs: usize) -> Builder {
        Builder {
            inputs,
            registers: inputs,
            instructions: Vec::new(),
        }
    }

    /// Appends an op and returns the register of its result.
    fn op<const N: usize>(
        &mut self,
        name: &str,
        operands: &[usize],
        attributes: [Attribute; N],
    ) -> Result<usize> {
        self.instructions.push(Instruction {
            row: ops::row(name)?,
            operands: operands.into(),
            attributes: attributes.into(),
        });
        self.registers += 1;
        Ok(self.registers - 1)
    }

    fn number(&mut self, value: f32) -> Result<usize> {
        let bytes = Attribute::Bytes(value.to_ne_bytes().to_vec());
        let attributes = [bytes, axes(&[]), Attribute::Dtype(Dtype::Float32)];
        self.op("full", &[], attributes)
    }

    fn build(self, outputs: Vec<usize>) -> Result<Program> {
        Ok(Program::new(self.inputs, self.instructions, outputs)?)
    }
}

/// Queues a program, and waits only where the queue is full.
fn run<const N: usize>(
    stream: &Stream,
    program: &Arc<Program>,
    inputs: Vec<Arc<Slot>>,
) -> Result<[Arc<Slot>; N]> {
    loop {
        if let Some(outputs) = stream.run(program.clone(), inputs.clone()) {
            return outputs
                .into_vec()
                .try_into()
                .map_err(|_| "the program has other outputs".into());
        }
        wait_for_room(stream)?;
    }
}

fn wait_for_room(stream: &Stream) -> Result<()> {
    let (sender, room) = channel();
    let notice = move || sender.send(()).unwrap_or_default();
    if !stream.when_room(notice) {
        room.recv()?;
    }
    Ok(())
}

fn load(stream: &Stream, values: &[f32], dims: [usize; 2]) -> Result<Arc<Slot>> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let payload = Payload::new(bytes, &dims.map(|dim| dim as i64), Dtype::Float32)?;
    stream
        .load(payload)
        .ok_or_else(|| "the queue is full".into())
}

/// Waits for a single number.
fn read(slot: &Arc<Slot>) -> Result<f32> {
    let (sender, receiver) = channel();
    slot.read(move |view: mlx_core::Result<HostView, Arc<_>>| {
        let bytes = view.map(|view| view.bytes().to_vec());
        sender.send(bytes).unwrap_or_default();
    });
    let bytes = receiver.recv()??;
    Ok(f32::from_ne_bytes(bytes.as_slice().try_into()?))
}
