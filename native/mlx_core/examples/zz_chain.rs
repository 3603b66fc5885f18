use mlx_core::{ops, Device, Dtype, Instruction, Payload, Program, Slot, Stream};
use std::sync::{mpsc::channel, Arc};
use std::time::Instant;
fn median(name: &str, n: usize, mut run: impl FnMut()) {
    for _ in 0..n / 4 { run(); }
    let mut ts: Vec<u128> = (0..n).map(|_| { let t = Instant::now(); run(); t.elapsed().as_micros() }).collect();
    ts.sort();
    println!("{name:28} median {} p10 {} min {}", ts[n / 2], ts[n / 10], ts[0]);
}
fn eval(slot: &Arc<Slot>) {
    let (s, r) = channel();
    Slot::eval_all(slot.clone(), vec![], move |o: mlx_core::Result<(), Arc<_>>| { s.send(o.is_ok()).unwrap(); });
    assert!(r.recv().unwrap());
}
fn run(stream: &Stream, p: &Arc<Program>, i: Vec<Arc<Slot>>) -> Arc<Slot> {
    stream.run(p.clone(), i).unwrap()[0].clone()
}
fn main() {
    mlx_core::init();
    let gpu = Device::Gpu.is_available();
    if std::env::args().nth(1).as_deref() == Some("raw") {
        let work = move || {
            let device = if gpu { mlx_rs::Device::gpu() } else { mlx_rs::Device::cpu() };
            let stream = mlx_rs::Stream::new_with_device(&device);
            mlx_rs::with_stream(&stream, || {
                let x = mlx_rs::Array::from_slice(&[0.5f32; 256], &[256]);
                let one = mlx_rs::Array::from_slice(&[1f32; 256], &[256]);
                median("raw add eval", 400, || x.add(&x).unwrap().eval().unwrap());
                median("raw build 100", 200, || { let mut y = x.clone(); for _ in 0..100 { y = y.add(&one).unwrap(); } });
                median("raw chain eval", 200, || { let mut y = x.clone(); for _ in 0..100 { y = y.add(&one).unwrap(); } y.eval().unwrap(); });
                for k in [8, 16, 32] {
                    median(&format!("raw chain async each {k}"), 200, || { let mut y = x.clone(); for i in 0..100 { y = y.add(&one).unwrap(); if i % k == k - 1 { mlx_rs::transforms::async_eval([&y]).unwrap(); } } y.eval().unwrap(); });
                }
            });
        };
        if std::env::args().nth(2).as_deref() == Some("thread") { std::thread::spawn(work).join().unwrap(); } else { work(); }
        return;
    }
    let stream = Stream::of(if gpu { Device::Gpu } else { Device::Cpu }).unwrap();
    let load = |v: f32| { let b: Vec<u8> = (0..256).flat_map(|_| v.to_ne_bytes()).collect(); stream.load(Payload::new(b, &[256], Dtype::Float32).unwrap()).unwrap() };
    let (x, one) = (load(0.5), load(1.0));
    let add = Arc::new(Program::new(2, vec![Instruction { row: ops::row("add").unwrap(), operands: [0usize, 1][..].into(), attributes: [][..].into() }], vec![2]).unwrap());
    median("engine add eval", 400, || eval(&run(stream, &add, vec![x.clone(), x.clone()])));
    let chain = || { let mut y = x.clone(); for _ in 0..100 { y = run(stream, &add, vec![y, one.clone()]); } y };
    median("engine chain eval", 200, || eval(&chain()));
    // paced as the BEAM paces
    median("engine chain paced 2us", 200, || { let mut y = x.clone(); for _ in 0..100 { let t = Instant::now(); y = run(stream, &add, vec![y, one.clone()]); while t.elapsed().as_nanos() < 2000 {} } eval(&y) });
}
