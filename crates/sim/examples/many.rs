//! many
use synod_sim::batch::{Options, run};
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    std::panic::set_hook(Box::new(|_| {}));
    let r = run(a[0]..a[1], Options { failures: 40, ..Options::default() }, |_, _| {});
    for (s, b) in &r.failures {
        println!("seed {s}: {b}");
    }
    println!("{r}\nnever: {:?}", r.never());
    if a.len() > 2 {
        println!("{:#?}", r.sometimes);
    }
}
