//! try
use synod_sim::world::{plan::Plan, run};
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let t = std::time::Instant::now();
    let (mut sim, mut ev, mut ans) = (0.0, 0, 0);
    let mut some = std::collections::BTreeMap::new();
    let rec = a.len() > 2;
    for seed in a[0]..a[1] {
        let out = run(&Plan::of(seed), rec);
        sim += out.simulated.as_secs_f64();
        ev += out.events;
        ans += out.answered;
        for (k, v) in out.sometimes {
            *some.entry(k).or_insert(0) += v;
        }
        if let Some(b) = out.broken {
            println!("seed {seed}: {b:?}");
        }
        if rec {
            for l in &out.record {
                println!("{l}");
            }
            println!("fp {:x} plan {:#?}", out.fingerprint, Plan::of(seed));
        }
    }
    let el = t.elapsed().as_secs_f64();
    println!(
        "{} seeds {el:.2}s, {sim:.0} sim s ({:.0}/s), {ev} events ({:.0}/s), {ans} answered",
        a[1] - a[0],
        sim / el,
        ev as f64 / el
    );
    println!("{some:#?}");
}
