//! Streams beside each other: random graphs over many of them, and the threads they take.
//!
//! `STRESS_SECONDS=120 cargo test --release -p mlx_core --test streams` looks for longer.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::*;
use parking_lot::Mutex;

use mlx_core::{Dtype, Instruction, Payload, Program, Slot, Stream};

const STREAMS: usize = 8;
const THREADS: usize = 16;
const NODES: usize = 400;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

/// An operation on earlier nodes, and what else happens to its result.
struct Node {
    operands: [usize; 2],
    kind: usize,
    stream: usize,
    /// How many read it, of whom the last lets go of it.
    readers: usize,
    kept: bool,
    errand: usize,
}

struct Graph {
    side: usize,
    nodes: Vec<Node>,
}

/// Integers wrap, so that every order of evaluation gives the same bits.
fn program(kind: usize) -> Arc<Program> {
    static PROGRAMS: OnceLock<Vec<Arc<Program>>> = OnceLock::new();
    let all = PROGRAMS.get_or_init(|| {
        let one = |name: &str, operands: &[usize]| instruction(name, operands, vec![]);
        let lists: [Vec<Instruction>; 7] = [
            vec![one("add", &[0, 1])],
            vec![one("multiply", &[0, 1]), one("bitwise_xor", &[2, 0])],
            vec![one("max", &[0, 1]), one("subtract", &[2, 1])],
            vec![
                instruction("transpose", &[0], vec![ints(&[1, 0])]),
                one("add", &[2, 1]),
            ],
            vec![one("bitwise_not", &[0]), one("min", &[2, 1])],
            vec![instruction("transpose", &[1], vec![ints(&[1, 0])])],
            vec![
                one("add", &[0, 0]),
                one("add", &[2, 2]),
                one("bitwise_xor", &[3, 1]),
            ],
        ];
        let programs = lists.map(|list| {
            let last = 1 + list.len();
            Arc::new(Program::new(2, list, vec![last]).unwrap())
        });
        programs.to_vec()
    });
    all[kind % all.len()].clone()
}

impl Graph {
    fn random(seed: u64) -> Graph {
        let mut random = Random(seed);
        let mut nodes: Vec<Node> = (0..NODES)
            .map(|at| Node {
                // Mostly of what was just made, so that streams wait for each other.
                operands: [0, 1].map(|_| at.saturating_sub(1 + random.below(12))),
                kind: random.below(7),
                stream: random.below(STREAMS),
                readers: 0,
                kept: random.below(6) == 0,
                errand: random.below(10),
            })
            .collect();
        for at in 1..NODES {
            for operand in nodes[at].operands {
                nodes[operand].readers += 1;
            }
        }
        Graph {
            side: [3, 40, 300][random.below(3)],
            nodes,
        }
    }

    fn source(&self, stream: &Stream) -> Arc<Slot> {
        let count = (self.side * self.side) as i32;
        let bytes: Vec<u8> = (0..count)
            .flat_map(|at| (at * 7 - 50).to_ne_bytes())
            .collect();
        let dims = [self.side as i64; 2];
        let payload = Payload::new(bytes, &dims, Dtype::Int32).unwrap();
        stream.load(payload).unwrap()
    }

    /// The kept results of a run on one stream, one after the other.
    fn serially(&self) -> Vec<Vec<u8>> {
        let stream = stream();
        let mut slots = vec![self.source(&stream)];
        for node in &self.nodes[1..] {
            let inputs = node.operands.map(|at| slots[at].clone()).to_vec();
            let slot = stream.run(program(node.kind), inputs).unwrap().remove(0);
            read(&slot).unwrap();
            slots.push(slot);
        }
        self.kept().map(|at| read(&slots[at]).unwrap()).collect()
    }

    fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        (0..NODES).filter(|&at| self.nodes[at].kept)
    }

    fn next(&self, next: &AtomicUsize) -> Option<(usize, &Node)> {
        let at = next.fetch_add(1, Ordering::Relaxed);
        Some((at, self.nodes.get(at)?))
    }

    /// The same of a run by many threads on many streams.
    fn at_once(&self, streams: &[Stream]) -> Vec<Vec<u8>> {
        let places: Vec<Place> = self.nodes.iter().map(Place::new).collect();
        places[0].put(self.source(&streams[0]));
        let next = AtomicUsize::new(1);
        let work = || {
            while let Some((at, node)) = self.next(&next) {
                node.run(&places, at, &streams[node.stream]);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        self.kept()
            .map(|at| read(&places[at].get()).unwrap())
            .collect()
    }
}

/// Where the result of a node is for as long as somebody needs it.
struct Place {
    slot: Mutex<Option<Arc<Slot>>>,
    readers: AtomicUsize,
}

impl Place {
    fn new(node: &Node) -> Place {
        Place {
            slot: Mutex::new(None),
            readers: AtomicUsize::new(node.readers + usize::from(node.kept)),
        }
    }

    fn put(&self, slot: Arc<Slot>) {
        if self.readers.load(Ordering::Relaxed) > 0 {
            *self.slot.lock() = Some(slot);
        }
    }

    fn get(&self) -> Arc<Slot> {
        loop {
            if let Some(slot) = self.slot.lock().as_ref() {
                return slot.clone();
            }
            std::thread::yield_now();
        }
    }

    fn let_go(&self) {
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.slot.lock().take();
        }
    }
}

impl Node {
    fn run(&self, places: &[Place], at: usize, stream: &Stream) {
        let inputs = self.operands.map(|operand| places[operand].get());
        let slot = queue(stream, program(self.kind), &inputs);
        drop(inputs);
        self.operands
            .iter()
            .for_each(|&operand| places[operand].let_go());
        places[at].put(slot.clone());
        match self.errand {
            0 => drop(read(&slot).unwrap()),
            1 => slot.async_eval(),
            2 => eval(vec![slot, places[0].get()]),
            3 => synchronize(stream),
            4 => drop(slot.host_view()),
            _ => {}
        }
    }
}

/// Queues a program, as soon as there is room.
fn queue(stream: &Stream, program: Arc<Program>, inputs: &[Arc<Slot>]) -> Arc<Slot> {
    loop {
        if let Some(mut slots) = stream.run(program.clone(), inputs.to_vec()) {
            return slots.remove(0);
        }
        let (sender, room) = channel();
        if !stream.when_room(move || sender.send(()).unwrap()) {
            room.recv().unwrap();
        }
    }
}

fn eval(mut slots: Vec<Arc<Slot>>) {
    let (sender, receiver) = channel();
    let first = slots.remove(0);
    Slot::eval_all(first, slots, move |outcome| sender.send(outcome).unwrap());
    receiver.recv().unwrap().unwrap();
}

#[test]
fn random_graphs_over_streams_and_threads_give_what_one_stream_does() {
    let seconds = std::env::var("STRESS_SECONDS").map_or(0, |text| text.parse().unwrap());
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let streams: Vec<Stream> = (0..STREAMS).map(|_| stream()).collect();
    let mut seed = 0;
    while seed < 6 || Instant::now() < deadline {
        let mut graph = Graph::random(seed);
        // The first is in any case asked for after it was used.
        graph.nodes[0].kept = true;
        assert!(graph.serially() == graph.at_once(&streams), "seed {seed}");
        seed += 1;
    }
    println!("{seed} graphs of {NODES} nodes");
}

/// Holds a stream's worker until what is returned is dropped.
fn hold(stream: &Stream) -> std::sync::mpsc::Sender<()> {
    let (release, held) = channel::<()>();
    let (started, running) = channel();
    stream.synchronize(move |_| {
        started.send(()).unwrap();
        let _ = held.recv();
    });
    running.recv().unwrap();
    release
}

/// Workers that are held are missing from the pool for all tests.
static HOLDING: Mutex<()> = Mutex::new(());

#[test]
fn a_new_stream_does_not_wait_for_what_another_left() {
    let _alone = HOLDING.lock();
    let left = stream();
    let release = hold(&left);
    let slot = load(&left, &[2.0], &[]);
    drop(left);
    let (sender, receiver) = channel();
    let fresh = stream();
    fresh.synchronize(move |outcome| sender.send(outcome).unwrap());
    receiver
        .recv_timeout(Duration::from_secs(20))
        .expect("it waits")
        .unwrap();
    drop(release);
    assert_eq!(floats(&slot), [2.0]);
}

#[test]
fn streams_that_leave_work_do_not_take_a_thread_each() {
    let _alone = HOLDING.lock();
    let before = mlx_core::worker_count();
    let held: Vec<_> = (0..100).map(|_| hold_one()).collect();
    // Other tests run beside this one and take workers of their own.
    assert!(mlx_core::worker_count() - before < 40);
    drop(held);
}

/// A stream that is dropped with work, which does not end before the channel does.
fn hold_one() -> std::sync::mpsc::Sender<()> {
    let stream = stream();
    let (release, held) = channel::<()>();
    stream.synchronize(move |_| {
        let _ = held.recv();
    });
    release
}
