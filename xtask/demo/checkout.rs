//! The demonstration's service: a shop that takes orders calmly until its rules become expensive. One thread then does
//! nothing but match rules, which is what `probe` is to find.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// How long it is calm.
const CALM: Duration = Duration::from_secs(8);

fn main() {
    let begun = Instant::now();
    let threads = [
        named("acceptor", move || {
            loop {
                accept_order();
                thread::sleep(Duration::from_millis(20));
            }
        }),
        named("matcher", move || {
            loop {
                if begun.elapsed() < CALM {
                    price_order();
                    thread::sleep(Duration::from_millis(10));
                } else {
                    match_rules();
                }
            }
        }),
        named("journal", move || {
            loop {
                write_journal();
                thread::sleep(Duration::from_millis(100));
            }
        }),
    ];
    println!("ready");
    for thread in threads {
        thread.join().expect("the service's threads do not end");
    }
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).expect("threads can be started")
}

/// Work that belongs to the function in which it stands.
macro_rules! compute {
    ($rounds:expr) => {
        let mut value: u64 = $rounds;
        for round in 0..$rounds {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
        }
    };
}

#[inline(never)]
fn accept_order() {
    compute!(50_000);
}

#[inline(never)]
fn write_journal() {
    compute!(100_000);
}

#[inline(never)]
fn price_order() {
    compute!(30_000);
    compare_parts(7);
}

/// Every order against every rule, and each rule against some parts of the order.
#[inline(never)]
fn match_rules() {
    for rule in 0..200 {
        compute!(10_000);
        compare_parts(rule);
    }
    price_order();
}

#[inline(never)]
fn compare_parts(rule: u64) {
    compute!(2_000 + rule);
}
