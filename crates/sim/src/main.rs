//! `synod-sim mutants`: breaks synod on purpose in every way on the list, and says which the simulator caught.

#[cfg(feature = "mutants")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    use std::time::Instant;
    use synod_sim::mutants::{ALL, hunt};

    const USAGE: &str = "usage: synod-sim mutants [--seeds N] [--seed FIRST] [NAME]...";
    const SEEDS: u64 = 2_000;

    let (mut seeds, mut first, mut names) = (SEEDS, 0, Vec::new());
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some("mutants") {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|number| number.parse::<u64>().ok());
        match arg.as_str() {
            "--seeds" => match number() {
                Some(number) => seeds = number,
                None => return usage(USAGE),
            },
            "--seed" => match number() {
                Some(number) => first = number,
                None => return usage(USAGE),
            },
            name if ALL.iter().any(|entry| entry.name == name) => names.push(name.to_owned()),
            _ => return usage(USAGE),
        }
    }
    // What breaks may panic, and says so a thousand times.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<28} {:>6}  {:<34} mistake", "mutant", "seeds", "caught by");
    let chosen = ALL.iter().filter(|entry| names.is_empty() || names.iter().any(|name| name == entry.name));
    let (mut caught, mut all) = (0, 0);
    let began = Instant::now();
    for entry in chosen {
        all += 1;
        let (after, by) = match hunt(entry, first, seeds) {
            Some(found) => {
                caught += 1;
                (found.after.to_string(), format!("{} ({})", found.invariant, found.clause))
            }
            None => ("-".into(), "NOT CAUGHT".into()),
        };
        println!("{:<28} {after:>6}  {by:<34} {}", entry.name, entry.words);
    }
    println!("at most {seeds} seeds each, {:.0} s", began.elapsed().as_secs_f64());
    println!("{caught} of {all} caught");
    if caught == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(feature = "mutants")]
fn usage(text: &str) -> std::process::ExitCode {
    eprintln!("{text}");
    std::process::ExitCode::from(2)
}

#[cfg(not(feature = "mutants"))]
fn main() {
    eprintln!("this build holds no mutants: cargo run --release -p synod-sim -- mutants");
    std::process::exit(2);
}
