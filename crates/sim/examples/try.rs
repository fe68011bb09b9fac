//! try
use synod_sim::world::{plan::Plan, run};
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let out = run(&Plan::of(a[0]), true);
    if let Some(b) = &out.broken {
        println!("seed {}: {b:?}", a[0]);
    }
    for e in out.record.iter().filter(|e| e.at < a[1]) {
        println!("{}", serde_json::to_string(e).unwrap());
    }
}
